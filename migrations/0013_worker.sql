-- Celery workers, each a switch of its own: the SDK in its main process says every few seconds how it is.
--
-- Old code knows no subject but monitors and Beats, and writes no other.

CREATE TABLE worker (
    id             uuid PRIMARY KEY,
    project_id     uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    -- The Celery application's name, as Beat's.
    app            text NOT NULL,
    -- Celery's node name: celery@host.
    name           text NOT NULL,
    -- paused: it said goodbye, or was given up.
    status         text NOT NULL,
    period_seconds double precision NOT NULL,
    grace_seconds  double precision NOT NULL,
    last_seen_at   timestamptz,
    deadline_at    timestamptz,
    check_after    timestamptz,
    -- What it last said of itself (openapi.yaml, WorkerSnapshotEvent).
    snapshot       jsonb NOT NULL,
    -- The queues that it consumes, out of the snapshot.
    queues         text[] NOT NULL,
    -- When its count of tasks last moved, or it last had nothing to do.
    progress_at    timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT worker_name_unique UNIQUE (project_id, app, name),
    CONSTRAINT worker_name_length CHECK (length(name) BETWEEN 1 AND 200 AND length(app) BETWEEN 1 AND 200),
    CONSTRAINT worker_status CHECK (status IN ('new', 'up', 'down', 'paused')),
    CONSTRAINT worker_check_after CHECK (check_after IS NULL OR deadline_at IS NULL OR check_after <= deadline_at)
) WITH (fillfactor = 50);
-- The evaluator's question: which workers may be overdue?
CREATE INDEX worker_check_after ON worker (check_after) WHERE check_after IS NOT NULL;

-- What is known of an application's broker: one worker looks at it for all.
CREATE TABLE broker (
    id            uuid PRIMARY KEY,
    project_id    uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    app           text NOT NULL,
    status        text NOT NULL,
    -- What is wrong with it and since when that has been seen: told when it has lasted.
    trouble       text,
    trouble_since timestamptz,
    -- The worker that was asked to look, and until when it is expected to.
    sampler       text,
    sampler_until timestamptz,
    -- What it last said (openapi.yaml, BrokerSampleEvent), and when.
    sample        jsonb,
    sampled_at    timestamptz,
    created_at    timestamptz NOT NULL,
    CONSTRAINT broker_app_unique UNIQUE (project_id, app),
    CONSTRAINT broker_status CHECK (status IN ('new', 'up', 'down'))
) WITH (fillfactor = 50);

-- Queues, as they were last seen.
CREATE TABLE queue (
    id             uuid PRIMARY KEY,
    project_id     uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    app            text NOT NULL,
    name           text NOT NULL,
    status         text NOT NULL,
    trouble        text,
    trouble_since  timestamptz,
    -- Messages that wait.
    depth          bigint NOT NULL,
    -- For how long the oldest one has waited; NULL: not known.
    oldest_seconds double precision,
    oldest_task    text,
    -- Messages that were taken in and are not acknowledged; NULL: not known for this queue.
    unacked        bigint,
    -- Consumers as the broker counts them; NULL: it does not.
    consumers      bigint,
    seen_at        timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT queue_name_unique UNIQUE (project_id, app, name),
    CONSTRAINT queue_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT queue_status CHECK (status IN ('new', 'up', 'down'))
) WITH (fillfactor = 50);

ALTER TABLE incident DROP CONSTRAINT incident_subject_kind;
ALTER TABLE incident ADD CONSTRAINT incident_subject_kind CHECK (subject_kind IN ('monitor', 'beat', 'worker', 'queue', 'broker'));
ALTER TABLE transition DROP CONSTRAINT transition_subject_kind;
ALTER TABLE transition ADD CONSTRAINT transition_subject_kind CHECK (subject_kind IN ('monitor', 'beat', 'worker', 'queue', 'broker'));

-- How far the newest run of a monitor got before it began: what an alert says of a run that does not come.
CREATE TABLE stage (
    monitor_id   uuid PRIMARY KEY REFERENCES monitor ON DELETE CASCADE,
    run_id       uuid NOT NULL,
    task_id      text,
    -- Where it was sent to.
    queue        text,
    -- NULL: who sent it has no SDK.
    published_at timestamptz,
    -- NULL: no worker has taken it, as far as is known.
    received_at  timestamptz,
    worker       text,
    -- When the last of this was heard.
    heard_at     timestamptz NOT NULL
) WITH (fillfactor = 50);
