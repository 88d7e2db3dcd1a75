-- no-transaction
-- Every row of a project's data names its project, so that a key, and later a database, can be chosen by it. Until now nine tables named
-- only the monitor, the incident or the delivery that their rows belong to. 0051 puts the column into the keys.
--
-- The code of the last release neither reads nor writes the column. A trigger fills it in for each row that comes without it (a trigger
-- writes all rows of `purge`); a row that comes with it pays for no more than the comparison. A later migration drops the triggers.
--
-- One statement that commits in between, and that can be run again: rows get their project in steps of a thousand pages, so no signal
-- waits for longer than a step. Rows whose monitor is gone name no project. They were to be removed in any case, and are removed here.

DO $migration$
DECLARE
    -- The retention's lock: nobody drops a day or removes rows meanwhile.
    removing constant bigint := 7234295460216004980;
    -- Pages that one step looks at.
    step constant bigint := 1000;
    of_monitor constant text := '(SELECT monitor.project_id FROM monitor WHERE monitor.id = %1$s.monitor_id)';
    of_incident constant text := '(SELECT incident.project_id FROM incident WHERE incident.id = %1$s.incident_id)';
    of_delivery constant text := '(SELECT delivery.project_id FROM delivery WHERE delivery.id = %1$s.delivery_id)';
    parents constant text[] := ARRAY['ping', 'ping_body', 'run', 'baseline', 'monitor_channel', 'incident_member', 'host_part', 'attempt'];
    parent text;
    source text;
    leaf text;
    leaves text[];
    page bigint;
    pages bigint;
BEGIN
    FOREACH parent IN ARRAY parents || 'purge'::text LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN IF NOT EXISTS project_id uuid', parent);
    END LOOP;

    CREATE OR REPLACE FUNCTION project_of_monitor() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT monitor.project_id INTO NEW.project_id FROM monitor WHERE monitor.id = NEW.monitor_id;
        RETURN NEW;
    END
    $$;
    CREATE OR REPLACE FUNCTION project_of_incident() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT incident.project_id INTO NEW.project_id FROM incident WHERE incident.id = NEW.incident_id;
        RETURN NEW;
    END
    $$;
    CREATE OR REPLACE FUNCTION project_of_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT delivery.project_id INTO NEW.project_id FROM delivery WHERE delivery.id = NEW.delivery_id;
        RETURN NEW;
    END
    $$;
    FOREACH parent IN ARRAY parents LOOP
        source := CASE WHEN parent IN ('incident_member', 'host_part') THEN 'incident' WHEN parent = 'attempt' THEN 'delivery' ELSE 'monitor' END;
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %1$s_project BEFORE INSERT ON %1$I FOR EACH ROW WHEN (NEW.project_id IS NULL) EXECUTE FUNCTION project_of_%2$s()',
            parent, source);
    END LOOP;

    CREATE OR REPLACE FUNCTION purge_deleted_monitors() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO purge (monitor_id, project_id, deleted_at) SELECT id, project_id, now() FROM gone ON CONFLICT DO NOTHING;
        RETURN NULL;
    END
    $$;
    COMMIT;

    FOREACH parent IN ARRAY parents LOOP
        source := CASE WHEN parent IN ('incident_member', 'host_part') THEN of_incident WHEN parent = 'attempt' THEN of_delivery ELSE of_monitor END;
        -- A day that is made from here on holds rows with their project. A table without partitions has no tree.
        SELECT coalesce(array_agg(relid::regclass::text), ARRAY[parent]) INTO leaves FROM pg_partition_tree(parent) WHERE isleaf;
        FOREACH leaf IN ARRAY leaves LOOP
            page := 0;
            pages := coalesce(pg_relation_size(to_regclass(leaf)), 0) / current_setting('block_size')::bigint;
            WHILE page <= pages LOOP
                PERFORM pg_advisory_xact_lock(removing);
                EXIT WHEN to_regclass(leaf) IS NULL;
                EXECUTE format(
                    'UPDATE %1$s SET project_id = ' || source || ' WHERE project_id IS NULL AND ctid >= %2$L AND ctid < %3$L',
                    leaf, format('(%s,0)', page), format('(%s,0)', page + step));
                EXECUTE format(
                    'DELETE FROM %1$s WHERE project_id IS NULL AND ctid >= %2$L AND ctid < %3$L',
                    leaf, format('(%s,0)', page), format('(%s,0)', page + step));
                COMMIT;
                page := page + step;
            END LOOP;
        END LOOP;
    END LOOP;

    -- What these monitors left is gone by now, but for memberships.
    PERFORM pg_advisory_xact_lock(removing);
    DELETE FROM incident_member USING purge WHERE incident_member.monitor_id = purge.monitor_id AND purge.project_id IS NULL;
    DELETE FROM purge WHERE project_id IS NULL;
    COMMIT;
END
$migration$;
