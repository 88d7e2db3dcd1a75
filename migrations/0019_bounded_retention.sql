-- The retention works in small steps, so that a large table never needs one long statement.
--
-- * One transaction drops one day's table. Pings and their bodies may be kept for different numbers of days.
-- * A day whose pings went to the default table gets a table of its own only while those are few: moving them is one statement. Many
--   stay in the default table, where they are read as before, and the retention removes them when they are too old.
--
-- Old code calls `make_ping_partitions` and `drop_ping_partitions` as before.

-- Drops the oldest table of a day before `first`; answers its name, NULL: there is none.
CREATE FUNCTION drop_oldest_partition(parent text, first date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    oldest text;
BEGIN
    SELECT child.relname
    INTO oldest
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = parent::regclass
        AND child.relname ~ ('^' || parent || '_[0-9]{8}$')
        AND to_date(right(child.relname, 8), 'YYYYMMDD') < first
    ORDER BY child.relname
    LIMIT 1;
    IF oldest IS NOT NULL THEN
        EXECUTE format('DROP TABLE %I', oldest);
    END IF;
    RETURN oldest;
END
$$;

CREATE OR REPLACE FUNCTION make_ping_partitions(first date, last date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    name text;
    strays bigint;
BEGIN
    FOREACH parent IN ARRAY ARRAY['ping', 'ping_body'] LOOP
        day := first;
        WHILE day <= last LOOP
            name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            IF to_regclass(name) IS NULL THEN
                EXECUTE format(
                    'SELECT count(*) FROM (SELECT FROM %I WHERE received_at >= %L AND received_at < %L LIMIT 50001) AS few',
                    parent || '_default', day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC')
                INTO strays;
                IF strays <= 50000 THEN
                    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
                    EXECUTE format(
                        'WITH moved AS (DELETE FROM %I WHERE received_at >= %L AND received_at < %L RETURNING *)
                        INSERT INTO %I SELECT * FROM moved',
                        parent || '_default', day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC', name);
                    EXECUTE format(
                        'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                        parent, name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                END IF;
            END IF;
            day := day + 1;
        END LOOP;
    END LOOP;
END
$$;
