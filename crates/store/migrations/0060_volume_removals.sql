-- Volumes whose content is to be removed, or is being made and on no record yet.
CREATE TABLE volume_removals (
    id TEXT NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL
);
