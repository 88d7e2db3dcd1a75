-- How far each writer has come. A batch whose commit was cut off (did it happen?) is kept in that writer's spool under the number it had:
-- what is up to `position` here was committed, and is not written a second time.
--
-- Old code writes no positions and has no spool.

CREATE TABLE writer (
    -- Names a spool file; a new file has a new one.
    id       uuid PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 50);

-- Tells processes that a monitor came or went, so that their caches of known ping ids follow. A hint: what it says is looked up.
CREATE FUNCTION tell_monitors() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one record;
BEGIN
    IF (SELECT count(*) FROM touched) > 1000 THEN
        PERFORM pg_notify('deadbeat_monitor', 'many');
    ELSE
        FOR one IN SELECT id, ping_id FROM touched LOOP
            PERFORM pg_notify('deadbeat_monitor', format('%s %s %s', TG_ARGV[0], one.ping_id, one.id));
        END LOOP;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER monitor_came AFTER INSERT ON monitor
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION tell_monitors('came');
CREATE TRIGGER monitor_went AFTER DELETE ON monitor
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION tell_monitors('went');
