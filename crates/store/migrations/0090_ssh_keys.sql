-- Public keys that a team's people connect to its sandboxes with. The same key may be
-- several teams'. fingerprint: SHA256: and the digest in base64.
CREATE TABLE ssh_keys (
    id           TEXT   NOT NULL PRIMARY KEY,
    team_id      TEXT   NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name         TEXT   NOT NULL,
    public_key   TEXT   NOT NULL,
    fingerprint  TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    UNIQUE (team_id, fingerprint)
);
CREATE INDEX ssh_keys_fingerprint ON ssh_keys (fingerprint);
