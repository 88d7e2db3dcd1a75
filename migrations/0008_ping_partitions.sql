-- Pings and their bodies by day, so that what is too old goes by dropping a table: 20 ms and the disk back at once, where a DELETE of as
-- many rows takes a second, and gives nothing back.
--
-- The foreign key to monitor goes: it cost every ping a look-up of a row that is locked already. A deleted monitor leaves its id in
-- `purge`, and the retention loop removes its pings. The number of a ping stays unique by the monitor's row lock, under which it is given.
--
-- Old code sees the same tables and columns, and writes them as before.

ALTER TABLE ping_body DROP CONSTRAINT ping_body_ping;
ALTER TABLE ping RENAME TO ping_before;
ALTER TABLE ping_before RENAME CONSTRAINT ping_pkey TO ping_before_pkey;
ALTER TABLE ping_body RENAME TO ping_body_before;
ALTER TABLE ping_body_before RENAME CONSTRAINT ping_body_pkey TO ping_body_before_pkey;

CREATE TABLE ping (
    monitor_id  uuid NOT NULL,
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
    -- A partition's key must be in it.
    CONSTRAINT ping_number PRIMARY KEY (monitor_id, n, received_at),
    CONSTRAINT ping_kind CHECK (kind IN ('start', 'success', 'fail', 'log')),
    CONSTRAINT ping_source CHECK (source IN ('http', 'event')),
    CONSTRAINT ping_exit_code CHECK (exit_code BETWEEN 0 AND 255)
) PARTITION BY RANGE (received_at);
-- What belongs to a day that has no table of its own: a clock that is far off. It is watched, and should be empty.
CREATE TABLE ping_default PARTITION OF ping DEFAULT;

CREATE TABLE ping_body (
    monitor_id  uuid NOT NULL,
    n           bigint NOT NULL,
    received_at timestamptz NOT NULL,
    body        bytea NOT NULL,
    CONSTRAINT ping_body_number PRIMARY KEY (monitor_id, n, received_at)
) PARTITION BY RANGE (received_at);
CREATE TABLE ping_body_default PARTITION OF ping_body DEFAULT;

-- Makes the tables of the days from `first` to `last`, both included, where they are missing. Attaching a filled table takes no lock
-- that would keep pings out, which creating it as a partition would. Rows that went to the default table meanwhile are moved.
CREATE FUNCTION make_ping_partitions(first date, last date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    name text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['ping', 'ping_body'] LOOP
        day := first;
        WHILE day <= last LOOP
            name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            IF to_regclass(name) IS NULL THEN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
                EXECUTE format(
                    'WITH moved AS (DELETE FROM %I WHERE received_at >= %L AND received_at < %L RETURNING *)
                    INSERT INTO %I SELECT * FROM moved',
                    parent || '_default', day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC', name);
                EXECUTE format(
                    'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                    parent, name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            END IF;
            day := day + 1;
        END LOOP;
    END LOOP;
END
$$;

-- Drops the tables of the days before `first`; answers how many.
CREATE FUNCTION drop_ping_partitions(first date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    name text;
    dropped integer := 0;
BEGIN
    FOR name IN
        SELECT child.relname
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent IN ('ping'::regclass, 'ping_body'::regclass)
            AND child.relname ~ '^ping(_body)?_[0-9]{8}$'
            AND to_date(right(child.relname, 8), 'YYYYMMDD') < first
        ORDER BY child.relname
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

SELECT make_ping_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 3);

INSERT INTO ping SELECT monitor_id, n, received_at, kind, run_id, exit_code, source, method, remote_addr, user_agent, body_bytes FROM ping_before;
INSERT INTO ping_body
SELECT body.monitor_id, body.n, ping.received_at, body.body FROM ping_body_before AS body JOIN ping_before AS ping USING (monitor_id, n);
DROP TABLE ping_body_before;
DROP TABLE ping_before;

-- Monitors that are gone and whose pings are not yet.
CREATE TABLE purge (
    monitor_id uuid PRIMARY KEY,
    deleted_at timestamptz NOT NULL
);
CREATE FUNCTION purge_deleted_monitors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO purge (monitor_id, deleted_at) SELECT id, now() FROM gone ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER monitor_purge AFTER DELETE ON monitor
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION purge_deleted_monitors();
