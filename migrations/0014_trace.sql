-- The history of runs: one row a run, whoever sent it, with every stage that was told of it. Events about one run come from several
-- processes and in no order; the server folds them in memory (domain/trace.rs) and writes the row anew.
--
-- Table `stage`, which held the newest run of each monitor only, goes: its reader reads `trace`. Old code that runs beside the new one
-- during an upgrade answers `run_published` and `run_received` with an error meanwhile, and the SDK sends them again.

CREATE TABLE trace (
    -- No foreign key: its check would cost every new run a look-up. A deleted project takes its traces along by a trigger.
    project_id       uuid NOT NULL,
    run_id           uuid NOT NULL,
    -- The Celery application's name, as Beat's.
    app              text NOT NULL,
    -- NULL: Beat did not send it, and no monitor waits for it.
    entry            text,
    -- The entry's monitor; it may be gone since.
    monitor_id       uuid,
    task             text,
    task_id          text,
    state            text NOT NULL,
    queue            text,
    worker           text,
    -- Since when its entry was due.
    slot             timestamptz,
    -- Not to be run before.
    eta              timestamptz,
    published_at     timestamptz,
    received_at      timestamptz,
    -- Of its first attempt.
    started_at       timestamptz,
    -- NULL of a run that has ended: nobody knows when.
    finished_at      timestamptz,
    -- From its publishing, or its ETA, to its first start.
    wait_seconds     double precision,
    -- Of its last attempt.
    run_seconds      double precision,
    attempts         integer NOT NULL,
    retries          integer NOT NULL,
    redelivered      boolean NOT NULL,
    error            text,
    -- When the first of it was heard: never changes, and sorts.
    heard_first_at   timestamptz NOT NULL,
    -- When the last of it happened.
    heard_at         timestamptz NOT NULL,
    -- The told stages, 64 at most, as domain/trace.rs writes them; `at` in microseconds since 1970.
    stages           jsonb NOT NULL,
    -- Stages, and starts among them, that are not kept.
    more_stages      integer NOT NULL,
    more_starts      integer NOT NULL,
    CONSTRAINT trace_pkey PRIMARY KEY (project_id, run_id),
    CONSTRAINT trace_state CHECK (state IN ('published', 'received', 'started', 'retried', 'success', 'ignored', 'failure',
        'retries_exhausted', 'rejected', 'aborted', 'revoked', 'expired', 'time_limit', 'lost')),
    CONSTRAINT trace_finished CHECK (finished_at IS NULL OR state NOT IN ('published', 'received', 'started', 'retried'))
    -- Half of a page stays free, and no index holds what changes: a run's later stages are HOT updates.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- A project's newest runs; and its oldest, for the retention.
CREATE INDEX trace_newest ON trace (project_id, heard_first_at);
-- A task's newest runs.
CREATE INDEX trace_task_newest ON trace (project_id, task, heard_first_at);
-- A monitor's newest run, for its alert. Runs that Beat did not send cost nothing here.
CREATE INDEX trace_monitor_newest ON trace (monitor_id, heard_first_at) WHERE monitor_id IS NOT NULL;

-- Runs that have begun and not ended, as of their last commit: a run that begins and ends in one batch never comes in here. An index on
-- `trace` that says the same would make each of its updates a cold one.
CREATE TABLE open_trace (
    project_id uuid NOT NULL,
    run_id     uuid NOT NULL,
    app        text NOT NULL,
    worker     text,
    started_at timestamptz NOT NULL,
    heard_at   timestamptz NOT NULL,
    CONSTRAINT open_trace_pkey PRIMARY KEY (project_id, run_id)
);

CREATE FUNCTION delete_traces_of_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM open_trace WHERE project_id = OLD.id;
    DELETE FROM trace WHERE project_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER project_traces AFTER DELETE ON project FOR EACH ROW EXECUTE FUNCTION delete_traces_of_project();

DROP TABLE stage;
