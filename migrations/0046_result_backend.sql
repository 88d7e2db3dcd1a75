-- A result backend that does not answer held up workers and Beat, and was told as four Beats that stall, as busy workers, or not at all. Now those who
-- wait for it say so, and it has an incident of its own, RESULT_BACKEND_DOWN, about a subject of its own. That subject has the id of its application's broker.
--
-- The code of the last release neither reads nor writes this column. It cannot read the new kind of subject and the new cause: while both versions run,
-- its page of incidents fails once such an incident is open.
ALTER TABLE beat
    -- What Beat last said of its calls into the result backend, as an object; NULL: it says nothing of it. A worker's is in its snapshot.
    ADD COLUMN result_backend jsonb;

ALTER TABLE incident DROP CONSTRAINT incident_subject_kind;
ALTER TABLE incident ADD CONSTRAINT incident_subject_kind
    CHECK (subject_kind IN ('monitor', 'beat', 'worker', 'queue', 'broker', 'result_backend')) NOT VALID;
-- Not validated: no row had another kind, and this table is long.
ALTER TABLE transition DROP CONSTRAINT transition_subject_kind;
ALTER TABLE transition ADD CONSTRAINT transition_subject_kind
    CHECK (subject_kind IN ('monitor', 'beat', 'worker', 'queue', 'broker', 'result_backend')) NOT VALID;

-- The open ones are looked for once a minute, and the last one of a backend when runs that it broke off are judged.
CREATE INDEX incident_result_backend ON incident (subject_id, resolved_at) WHERE subject_kind = 'result_backend';
