-- Durable storage that sandboxes mount; the content is on nodes.
CREATE TABLE volumes (
    id TEXT NOT NULL PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (team_id, name)
);

-- Volumes mounted in a sandbox, as asked for, in JSON; null for none.
ALTER TABLE sandboxes ADD COLUMN volume_mounts TEXT;
