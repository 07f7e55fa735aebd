-- What was told of the lives of sandboxes, in the order in which it was written. data: JSON.
CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    at           BIGINT NOT NULL,
    team_id      TEXT   NOT NULL,
    sandbox_id   TEXT   NOT NULL,
    template_id  TEXT   NOT NULL,
    build_id     TEXT   NOT NULL,
    run_id       TEXT   NOT NULL,
    data         TEXT   NOT NULL
);
CREATE INDEX events_team ON events (team_id, seq);
CREATE INDEX events_sandbox ON events (sandbox_id, seq);
CREATE INDEX events_at ON events (at);

-- kinds: names of the events wanted, each between two commas. The secret is kept in clear,
-- because every delivery is signed with it.
CREATE TABLE webhooks (
    id         TEXT   NOT NULL PRIMARY KEY,
    team_id    TEXT   NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name       TEXT   NOT NULL,
    url        TEXT   NOT NULL,
    enabled    BIGINT NOT NULL,
    kinds      TEXT   NOT NULL,
    secret     TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX webhooks_team ON webhooks (team_id);

-- The outbox: written together with the event, so that none is forgotten.
-- state: pending, delivered, failed. attempts: JSON, oldest first.
CREATE TABLE deliveries (
    id         TEXT   NOT NULL PRIMARY KEY,
    webhook_id TEXT   NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_seq  BIGINT NOT NULL,
    state      TEXT   NOT NULL,
    next_at    BIGINT NOT NULL,
    attempts   TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX deliveries_pending ON deliveries (webhook_id, next_at) WHERE state = 'pending';
CREATE INDEX deliveries_webhook ON deliveries (webhook_id, created_at);
CREATE INDEX deliveries_event ON deliveries (event_seq);

-- The current or last run; rows of before get one each.
ALTER TABLE sandboxes ADD COLUMN run_id TEXT NOT NULL DEFAULT '';
UPDATE sandboxes SET run_id = lower(
    hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
    || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)));
-- The most memory that it used, of one that ran out of it.
ALTER TABLE sandboxes ADD COLUMN memory_peak BIGINT;
