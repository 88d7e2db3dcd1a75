-- Two Beats of one application at once send every entry twice, and nothing told them apart. Now each start of a Beat names itself in its reports, and
-- two starts that go on reporting side by side are an incident of the Beat, BEAT_DUPLICATE.
--
-- The code of the last release neither reads nor writes this column. It cannot read the new cause: while both versions run, its page of incidents
-- and its look at that Beat fail once such an incident is open.
ALTER TABLE beat
    -- The processes that report as this Beat, a bounded list of objects: boot, host, pid, started_at, schedule, since, seen_at and the like.
    ADD COLUMN incarnations jsonb NOT NULL DEFAULT '[]';
