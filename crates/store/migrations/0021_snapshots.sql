-- What a build's capture of a sandbox holds: memory or filesystem; null for other builds.
ALTER TABLE builds ADD COLUMN capture TEXT;
-- Builds made from sandboxes; the pause's own captures are the node's.
CREATE TABLE snapshots (
    build_id    TEXT   NOT NULL PRIMARY KEY REFERENCES builds (id),
    template_id TEXT   NOT NULL REFERENCES templates (id),
    team_id     TEXT   NOT NULL REFERENCES teams (id),
    sandbox_id  TEXT   NOT NULL,
    tag         TEXT   NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE INDEX snapshots_team ON snapshots (team_id, created_at);
CREATE INDEX snapshots_template ON snapshots (template_id);
