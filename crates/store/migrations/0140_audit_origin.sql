-- The address that a request came from; null where there was none.
ALTER TABLE audit ADD COLUMN origin TEXT;
