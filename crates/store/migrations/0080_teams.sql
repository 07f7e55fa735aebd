-- state: active, blocked (reads and deletes only), banned. Deleted teams keep their row,
-- because templates and sandboxes of the past name it.
ALTER TABLE teams ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE teams ADD COLUMN deleted_at BIGINT;

-- role: admin, member, viewer.
ALTER TABLE team_members ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';

-- scope: full, read. created_by: a person; null if it was the server or its administrator.
ALTER TABLE api_keys ADD COLUMN scope TEXT NOT NULL DEFAULT 'full';
ALTER TABLE api_keys ADD COLUMN created_by TEXT;
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT;
ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;

ALTER TABLE access_tokens ADD COLUMN scope TEXT NOT NULL DEFAULT 'full';
ALTER TABLE access_tokens ADD COLUMN mask_prefix TEXT NOT NULL DEFAULT '';
ALTER TABLE access_tokens ADD COLUMN mask_suffix TEXT NOT NULL DEFAULT '';
ALTER TABLE access_tokens ADD COLUMN last_used_at BIGINT;
ALTER TABLE access_tokens ADD COLUMN expires_at BIGINT;
CREATE INDEX access_tokens_user ON access_tokens (user_id, created_at);

-- Who did what, in the order in which it was written. actor: key, user, admin, local (a
-- command on the server's machine), system. status: of the answer, null where there was
-- none. data: JSON.
CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    team_id    TEXT,
    actor      TEXT   NOT NULL,
    actor_id   TEXT,
    action     TEXT   NOT NULL,
    target     TEXT,
    status     BIGINT,
    reason     TEXT,
    request_id TEXT,
    data       TEXT   NOT NULL
);
CREATE INDEX audit_team ON audit (team_id, seq);
CREATE INDEX audit_target ON audit (target, seq);
CREATE INDEX audit_request ON audit (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_at ON audit (at);
