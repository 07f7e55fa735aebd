-- Why a build failed, and the step that did; null unless it failed.
ALTER TABLE builds ADD COLUMN reason TEXT;
ALTER TABLE builds ADD COLUMN reason_step TEXT;
-- Free space that was asked for, in MiB; null for the server's default.
ALTER TABLE builds ADD COLUMN min_free_disk_mib BIGINT;
CREATE INDEX builds_open ON builds (status) WHERE status IN ('waiting', 'building');
CREATE INDEX template_tags_build ON template_tags (build_id);
CREATE INDEX sandboxes_template ON sandboxes (template_id) WHERE ended_at IS NULL;
