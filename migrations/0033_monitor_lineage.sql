-- Two applications of one name: the list of one retired the monitors of the other. Now each monitor knows which lineages of its Beat list its entry,
-- and a list retires only what no other lineage lists.
--
-- The code of the last release neither reads nor writes this column. A monitor that it makes has no bit, and the next list that a new process
-- takes in decides about it. It cannot read the new cause APP_NAME_SHARED either (see 0032).
ALTER TABLE monitor
    -- Lineages of its Beat that list its entry, as bits; bit 0 is the first one. 0: not known. Those that are there follow the first one.
    ADD COLUMN listed_by smallint NOT NULL DEFAULT 1;
ALTER TABLE monitor
    ALTER COLUMN listed_by SET DEFAULT 0;
