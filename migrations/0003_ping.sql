-- What was heard: pings, their bodies, and the runs that they open and close.

CREATE TABLE ping (
    monitor_id  uuid NOT NULL REFERENCES monitor ON DELETE CASCADE,
    -- Counts up per monitor from 1, given under the monitor's row lock.
    n           bigint NOT NULL,
    received_at timestamptz NOT NULL,
    kind        text NOT NULL,
    -- As the client sent it (`rid`).
    run_id      uuid,
    exit_code   smallint,
    -- http, or the SDK's events.
    source      text NOT NULL,
    method      text,
    remote_addr text,
    user_agent  text,
    -- Bytes kept in ping_body; 0: none.
    body_bytes  integer NOT NULL,
    PRIMARY KEY (monitor_id, n),
    CONSTRAINT ping_kind CHECK (kind IN ('start', 'success', 'fail', 'log')),
    CONSTRAINT ping_source CHECK (source IN ('http', 'event')),
    CONSTRAINT ping_exit_code CHECK (exit_code BETWEEN 0 AND 255)
);

CREATE TABLE ping_body (
    monitor_id uuid NOT NULL,
    n          bigint NOT NULL,
    body       bytea NOT NULL,
    PRIMARY KEY (monitor_id, n),
    CONSTRAINT ping_body_ping FOREIGN KEY (monitor_id, n) REFERENCES ping ON DELETE CASCADE
);

CREATE TABLE run (
    id          uuid PRIMARY KEY,
    monitor_id  uuid NOT NULL REFERENCES monitor ON DELETE CASCADE,
    -- NULL: started without a run id; there is at most one such open run a monitor.
    run_id      uuid,
    status      text NOT NULL,
    -- NULL: only its end was heard.
    started_at  timestamptz,
    finished_at timestamptz,
    -- An open run that is not over by then is an OVERRUN; NULL once judged or closed.
    deadline_at timestamptz,
    duration_ms bigint,
    exit_code   smallint,
    -- What the SDK tells about a Celery run.
    task        text,
    task_id     text,
    worker      text,
    retries     integer NOT NULL,
    error       text,
    CONSTRAINT run_status CHECK (status IN ('open', 'success', 'fail', 'overrun')),
    CONSTRAINT run_open_has_start CHECK (status <> 'open' OR (started_at IS NOT NULL AND finished_at IS NULL AND deadline_at IS NOT NULL)),
    CONSTRAINT run_closed_has_end CHECK (status NOT IN ('success', 'fail') OR finished_at IS NOT NULL)
);
-- Pairing: one open run a run id, and one without.
CREATE UNIQUE INDEX run_open ON run (monitor_id, run_id) NULLS NOT DISTINCT WHERE status = 'open';
-- A monitor's runs, newest first.
CREATE INDEX run_monitor ON run (monitor_id, id);
-- Which run a late start or end belongs to.
CREATE INDEX run_run_id ON run (monitor_id, run_id) WHERE run_id IS NOT NULL;
