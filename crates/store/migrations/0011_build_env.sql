-- Variables that the steps of a build ended with, for builds that start from it; null for
-- builds that were not made of steps.
ALTER TABLE builds ADD COLUMN build_env TEXT;
