-- What a team or an API key may have at a time, where it differs from the server's defaults.
-- How many sandboxes a team may have is in `teams`.
CREATE TABLE team_limits (
    team_id             TEXT NOT NULL PRIMARY KEY REFERENCES teams (id) ON DELETE CASCADE,
    cpus                BIGINT,
    memory_mib          BIGINT,
    disk_mib            BIGINT,
    requests_per_minute BIGINT
);
CREATE TABLE key_limits (
    key_id              TEXT NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    sandboxes           BIGINT,
    cpus                BIGINT,
    memory_mib          BIGINT,
    disk_mib            BIGINT,
    requests_per_minute BIGINT
);

-- The API key that a sandbox was made with, whose budget it counts against.
ALTER TABLE sandboxes ADD COLUMN key_id TEXT;
