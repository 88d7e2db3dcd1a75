-- A list without enabled entries retires all monitors of a Beat, and nobody was told. Now it is an incident of the Beat, SCHEDULE_EMPTIED.
--
-- The code of the last release neither reads nor writes this column. It cannot read the new cause: while both versions run, its page of incidents
-- and its look at that Beat fail once such an incident is open.
ALTER TABLE beat
    -- Since when its list has had no enabled entry although it had several before; NULL: it has some, or a person knows.
    ADD COLUMN emptied_at timestamptz;
