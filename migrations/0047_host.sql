-- A host that was lost with Beat and two workers was told three times. Now what runs on one machine and falls silent at one time is one incident,
-- HOST_LOST, about a subject of its own: the machine. Its id is made of the project and of which start of the machine it is.
--
-- The code of the last release neither reads nor writes the column and the table: it tells each part on its own. It cannot read the new kind of subject
-- and the new cause: while both versions run, its page of incidents fails once such an incident is open.
ALTER TABLE beat
    -- Which start of its machine it last reported from; NULL: it does not say. A worker's is in its snapshot.
    ADD COLUMN boot_id text;

-- The Beats and workers that an incident about a host is about. 10,000 an incident at most: a project has no more workers.
CREATE TABLE host_part (
    incident_id uuid NOT NULL REFERENCES incident ON DELETE CASCADE,
    -- A Beat or a worker. No foreign key: one that is deleted is back, as far as the host is concerned.
    part_id     uuid NOT NULL,
    part_kind   text NOT NULL,
    -- When its last report had come: one that is heard later is back.
    heard_at    timestamptz NOT NULL,
    -- When it was seen to be back; NULL: it is silent.
    back_at     timestamptz,
    CONSTRAINT host_part_pkey PRIMARY KEY (incident_id, part_id),
    CONSTRAINT host_part_kind CHECK (part_kind IN ('beat', 'worker'))
);
-- Whose incident a monitor joins whose Beat or worker is down.
CREATE INDEX host_part_silent ON host_part (part_id) WHERE back_at IS NULL;

ALTER TABLE incident DROP CONSTRAINT incident_subject_kind;
ALTER TABLE incident ADD CONSTRAINT incident_subject_kind
    CHECK (subject_kind IN ('monitor', 'beat', 'worker', 'queue', 'broker', 'result_backend', 'host')) NOT VALID;
-- Not validated: no row had another kind, and this table is long.
ALTER TABLE transition DROP CONSTRAINT transition_subject_kind;
ALTER TABLE transition ADD CONSTRAINT transition_subject_kind
    CHECK (subject_kind IN ('monitor', 'beat', 'worker', 'queue', 'broker', 'result_backend', 'host')) NOT VALID;

-- The open ones are looked at each second.
CREATE INDEX incident_host_open ON incident (id) WHERE subject_kind = 'host' AND resolved_at IS NULL;
