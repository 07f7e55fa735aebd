-- Secrets of teams: values are sealed before they come here.
CREATE TABLE secrets (
    id TEXT PRIMARY KEY NOT NULL,
    team_id TEXT NOT NULL REFERENCES teams (id),
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (team_id, name)
) STRICT;
CREATE INDEX secrets_by_age ON secrets (team_id, created_at DESC, id DESC);
