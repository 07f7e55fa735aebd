-- The start command as JSON; null for none.
ALTER TABLE builds ADD COLUMN start TEXT;
