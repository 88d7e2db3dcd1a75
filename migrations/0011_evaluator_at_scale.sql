-- What a passed deadline writes, made cheap: a storm takes a hundred thousand monitors down, and each of them is a transition, an incident
-- and a delivery a channel.
--
-- The foreign keys of these three tables go: eight look-ups a deadline, of rows that the same transaction has just written or holds. What
-- they promised is kept otherwise:
-- * An incident and its transition are written under the lock of their monitor or Beat, and a delivery with its incident, or under a share
--   of its channel's lock (`enqueue`). Who deletes a project or a channel waits for those, and then removes what was written meanwhile,
-- * because what belongs to a deleted project, channel or incident is removed by the triggers below, which look after all that.
--
-- Indexes go that cost more than they give. Old code sees the same tables and columns, and writes them as before.

ALTER TABLE transition DROP CONSTRAINT transition_project_id_fkey;
ALTER TABLE incident DROP CONSTRAINT incident_project_id_fkey;
ALTER TABLE delivery
    DROP CONSTRAINT delivery_project_id_fkey,
    DROP CONSTRAINT delivery_channel_id_fkey,
    DROP CONSTRAINT delivery_incident_id_fkey;

CREATE FUNCTION remove_of_projects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM delivery USING gone WHERE project_id = gone.id;
    DELETE FROM incident USING gone WHERE project_id = gone.id;
    DELETE FROM transition USING gone WHERE project_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER project_remove AFTER DELETE ON project
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_of_projects();

CREATE FUNCTION remove_of_channels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM delivery USING gone WHERE channel_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER channel_remove AFTER DELETE ON channel
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_of_channels();

CREATE FUNCTION remove_of_incidents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM delivery USING gone WHERE incident_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER incident_remove AFTER DELETE ON incident
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_of_incidents();

-- The history is asked for by subject only: one index is enough, and it is the key.
DROP INDEX transition_subject;
ALTER TABLE transition DROP CONSTRAINT transition_pkey;
ALTER TABLE transition ADD CONSTRAINT transition_subject PRIMARY KEY (subject_kind, subject_id, id);

-- Order within an incident and channel, and that an incident is opened and resolved once a channel, by one index. Reminders and tests are
-- told apart by their ids.
DROP INDEX delivery_order;
DROP INDEX delivery_once;
CREATE UNIQUE INDEX delivery_once ON delivery
    (incident_id, channel_id, (CASE WHEN alert IN ('opened', 'resolved') THEN alert ELSE id::text END));
-- Deleting a channel, and the next that are due to it.
DROP INDEX delivery_channel;
CREATE INDEX delivery_channel ON delivery (channel_id, next_attempt_at);

-- Only monitors that a Beat registered have an entry.
ALTER TABLE monitor DROP CONSTRAINT monitor_entry_unique;
CREATE UNIQUE INDEX monitor_entry_unique ON monitor (beat_id, entry) WHERE beat_id IS NOT NULL;

-- Who sweeps, so that any process can say when somebody last did. One row a process, stamped once a second.
CREATE TABLE evaluator (
    -- A process, made anew at each start.
    id       uuid PRIMARY KEY,
    swept_at timestamptz NOT NULL
) WITH (fillfactor = 50);
