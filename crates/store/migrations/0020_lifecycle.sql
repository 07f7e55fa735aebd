-- Raised by every pause and resume: of two reports, the one with more is newer.
ALTER TABLE sandboxes ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
-- Of a paused sandbox: whether its memory is kept, and why less is kept than was asked for.
ALTER TABLE sandboxes ADD COLUMN pause_memory BIGINT;
ALTER TABLE sandboxes ADD COLUMN pause_note TEXT;
-- Whether a pause at time-out keeps memory.
ALTER TABLE sandboxes ADD COLUMN auto_pause_memory BIGINT NOT NULL DEFAULT 1;
-- Life in seconds that the create asked for.
ALTER TABLE sandboxes ADD COLUMN timeout_s BIGINT NOT NULL DEFAULT 300;
