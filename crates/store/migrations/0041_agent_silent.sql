-- Of a paused sandbox: its agent did not answer when its memory was kept.
ALTER TABLE sandboxes ADD COLUMN pause_agent_silent BIGINT NOT NULL DEFAULT 0;
