-- A run that began is owned by one process of a worker, its incarnation. When the incarnation ends, the run is decided; before, the run of
-- a worker that was killed and restarted under its name stayed open for a day.
--
-- The code of the last release neither reads nor writes these columns: the runs that it writes have no owner, and are judged as before.
ALTER TABLE worker
    -- The incarnations that reported under this name, as domain/worker_incarnation.rs writes them: 32 at most.
    ADD COLUMN incarnations jsonb NOT NULL DEFAULT '[]';

ALTER TABLE run
    -- The incarnation that executes it; NULL: the SDK does not say.
    ADD COLUMN incarnation uuid,
    -- Its message is acknowledged when it has ended.
    ADD COLUMN acks_late   boolean NOT NULL DEFAULT false,
    -- While open: why and since when its owner is taken not to execute it any more.
    ADD COLUMN orphaned    text,
    ADD COLUMN orphaned_at timestamptz,
    ADD CONSTRAINT run_orphaned CHECK (orphaned IN ('ended', 'unheard', 'unlisted')),
    ADD CONSTRAINT run_orphaned_at CHECK ((orphaned IS NULL) = (orphaned_at IS NULL));
-- The evaluator's question when an incarnation ends, and that of each snapshot: which open runs are its own?
CREATE INDEX run_incarnation_open ON run (incarnation) WHERE status = 'open' AND incarnation IS NOT NULL;
