-- A worker that falls silent is judged with all that runs on its machine. The machine stood only inside of the snapshots: they were all read, once for each
-- worker of a sweep, 3 s for a thousand workers of ten thousand. It is a column of its own now, and an index finds who shares it.
--
-- PostgreSQL computes the column, so the code of the last release writes it, too. The table is locked and written anew: some seconds for 20,000 workers.
-- The machine seldom changes, so what a worker says every few seconds stays a HOT update.
ALTER TABLE worker
    -- Which start of which machine it last reported from; a machine that does not say that is known by its name. NULL: it says neither.
    ADD COLUMN machine text GENERATED ALWAYS AS (coalesce(nullif(snapshot->>'boot_id', ''), 'named ' || (snapshot->>'host'))) STORED;
-- Who runs beside a worker that falls silent.
CREATE INDEX worker_machine ON worker (project_id, machine);
