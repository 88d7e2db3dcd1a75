-- One fault is one incident, also when it was only inferred: monitors that name the same broker, queue, worker or Beat join one incident about it.
--
-- The code of the last release does not read the column. It leaves an inferred incident open when its members are well; the new code ends it
-- within a minute.
ALTER TABLE incident
    -- Nobody saw its subject in trouble: its members name it, and it ends when none of them is down with it.
    ADD COLUMN inferred boolean NOT NULL DEFAULT false;

-- Few are open: looked for once a minute.
CREATE INDEX incident_inferred ON incident (id) WHERE inferred AND resolved_at IS NULL;
