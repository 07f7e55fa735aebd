-- Ids are text, times are microseconds since the epoch, flags are 0 or 1.

CREATE TABLE teams (
    id            TEXT   NOT NULL PRIMARY KEY,
    name          TEXT   NOT NULL,
    slug          TEXT   NOT NULL UNIQUE,
    max_sandboxes BIGINT,
    created_at    BIGINT NOT NULL
);

CREATE TABLE users (
    id         TEXT   NOT NULL PRIMARY KEY,
    email      TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE team_members (
    user_id    TEXT   NOT NULL REFERENCES users (id),
    team_id    TEXT   NOT NULL REFERENCES teams (id),
    is_default BIGINT NOT NULL,
    PRIMARY KEY (user_id, team_id)
);

-- Only hashes of keys are kept: SHA-256 of the decoded bytes, in hex.
CREATE TABLE api_keys (
    id           TEXT   NOT NULL PRIMARY KEY,
    team_id      TEXT   NOT NULL REFERENCES teams (id),
    name         TEXT   NOT NULL,
    hash         TEXT   NOT NULL UNIQUE,
    value_length BIGINT NOT NULL,
    mask_prefix  TEXT   NOT NULL,
    mask_suffix  TEXT   NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE INDEX api_keys_team ON api_keys (team_id, created_at);

CREATE TABLE access_tokens (
    id         TEXT   NOT NULL PRIMARY KEY,
    user_id    TEXT   NOT NULL REFERENCES users (id),
    name       TEXT   NOT NULL,
    hash       TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE templates (
    id              TEXT   NOT NULL PRIMARY KEY,
    team_id         TEXT   NOT NULL REFERENCES teams (id),
    public          BIGINT NOT NULL,
    spawn_count     BIGINT NOT NULL,
    last_spawned_at BIGINT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    deleted_at      BIGINT
);
CREATE INDEX templates_team ON templates (team_id, created_at);

-- The empty namespace holds the global names.
CREATE TABLE template_aliases (
    namespace   TEXT   NOT NULL,
    alias       TEXT   NOT NULL,
    template_id TEXT   NOT NULL REFERENCES templates (id),
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (namespace, alias)
);
CREATE INDEX template_aliases_template ON template_aliases (template_id);

CREATE TABLE builds (
    id              TEXT   NOT NULL PRIMARY KEY,
    template_id     TEXT   NOT NULL REFERENCES templates (id),
    status          TEXT   NOT NULL,
    layers          TEXT   NOT NULL,
    env             TEXT   NOT NULL,
    default_user    TEXT   NOT NULL,
    default_workdir TEXT,
    cpu_count       BIGINT NOT NULL,
    memory_mib      BIGINT NOT NULL,
    disk_mib        BIGINT NOT NULL,
    max_processes   BIGINT NOT NULL,
    envd_version    TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    finished_at     BIGINT
);
CREATE INDEX builds_template ON builds (template_id, created_at);

-- History: the newest assignment whose build is ready wins.
CREATE TABLE template_tags (
    template_id TEXT   NOT NULL REFERENCES templates (id),
    tag         TEXT   NOT NULL,
    build_id    TEXT   NOT NULL REFERENCES builds (id),
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (template_id, tag, created_at, build_id)
);

CREATE TABLE sandboxes (
    id              TEXT   NOT NULL PRIMARY KEY,
    team_id         TEXT   NOT NULL,
    template_id     TEXT   NOT NULL,
    build_id        TEXT   NOT NULL,
    alias           TEXT,
    state           TEXT   NOT NULL,
    started_at      BIGINT NOT NULL,
    end_at          BIGINT NOT NULL,
    ended_at        BIGINT,
    end_reason      TEXT,
    cpu_count       BIGINT NOT NULL,
    memory_mib      BIGINT NOT NULL,
    disk_mib        BIGINT NOT NULL,
    metadata        TEXT   NOT NULL,
    secure          BIGINT NOT NULL,
    private_traffic BIGINT NOT NULL,
    allow_internet  BIGINT,
    network         TEXT,
    auto_pause      BIGINT NOT NULL,
    auto_resume     BIGINT NOT NULL,
    mcp             TEXT
);
CREATE INDEX sandboxes_team ON sandboxes (team_id, started_at);
CREATE INDEX sandboxes_live ON sandboxes (team_id) WHERE ended_at IS NULL;
CREATE INDEX sandboxes_ended ON sandboxes (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE metrics (
    sandbox_id   TEXT             NOT NULL,
    at           BIGINT           NOT NULL,
    cpu_count    BIGINT           NOT NULL,
    cpu_used_pct DOUBLE PRECISION NOT NULL,
    mem_used     BIGINT           NOT NULL,
    mem_total    BIGINT           NOT NULL,
    mem_cache    BIGINT           NOT NULL,
    disk_used    BIGINT           NOT NULL,
    disk_total   BIGINT           NOT NULL,
    PRIMARY KEY (sandbox_id, at)
);
CREATE INDEX metrics_at ON metrics (at);

-- outcome: running, done, unknown.
CREATE TABLE idempotency (
    team_id     TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    outcome     TEXT   NOT NULL,
    status      BIGINT,
    body        TEXT,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (team_id, key)
);
