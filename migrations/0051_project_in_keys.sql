-- Every primary, unique and foreign key of a project's data contains its project: a database that is split by projects can keep such keys,
-- and no row can refer to another project's. The project comes last in each key, so the key serves a search by the other columns as before.
--
-- The code of the last release goes on: it finds every row by the same indexes. Its `ON CONFLICT` names six keys without a project, so these
-- stay as plain unique indexes (`<table>_before`), and a later migration drops them. 0050 fills in the project that it leaves out.
-- `run_pkey` takes the place of `run_monitor`, so runs have as many indexes as before; the retention walks by `run_before` until then.
--
-- All tables are locked until this ends, in the order in which signals lock them. Signals meanwhile go to the spools, or wait. It reads every
-- table once for each of its keys: 1,000,000 pings and 300,000 runs took 18 s on two cores that were busy with other work.

LOCK TABLE beat, worker, broker, queue, monitor, baseline, ping_body, run, ping, incident, incident_member, host_part, transition, channel,
    delivery, attempt, monitor_channel, purge IN ACCESS EXCLUSIVE MODE;

-- Foreign keys first: they hold the keys that they refer to.
ALTER TABLE monitor DROP CONSTRAINT monitor_beat_id_fkey;
ALTER TABLE baseline DROP CONSTRAINT baseline_monitor_id_fkey;
ALTER TABLE monitor_channel DROP CONSTRAINT monitor_channel_monitor_id_fkey, DROP CONSTRAINT monitor_channel_channel_id_fkey;
ALTER TABLE incident_member DROP CONSTRAINT incident_member_incident_id_fkey;
ALTER TABLE host_part DROP CONSTRAINT host_part_incident_id_fkey;
ALTER TABLE attempt DROP CONSTRAINT attempt_delivery_id_fkey;

ALTER TABLE beat DROP CONSTRAINT beat_pkey, ADD CONSTRAINT beat_pkey PRIMARY KEY (id, project_id);
ALTER TABLE worker DROP CONSTRAINT worker_pkey, ADD CONSTRAINT worker_pkey PRIMARY KEY (id, project_id);
ALTER TABLE broker DROP CONSTRAINT broker_pkey, ADD CONSTRAINT broker_pkey PRIMARY KEY (id, project_id);
ALTER TABLE queue DROP CONSTRAINT queue_pkey, ADD CONSTRAINT queue_pkey PRIMARY KEY (id, project_id);
ALTER TABLE channel DROP CONSTRAINT channel_pkey, ADD CONSTRAINT channel_pkey PRIMARY KEY (id, project_id);
ALTER TABLE purge DROP CONSTRAINT purge_pkey, ADD CONSTRAINT purge_pkey PRIMARY KEY (monitor_id, project_id);
ALTER TABLE transition
    DROP CONSTRAINT transition_subject,
    ADD CONSTRAINT transition_subject PRIMARY KEY (subject_kind, subject_id, id, project_id);

ALTER TABLE monitor
    DROP CONSTRAINT monitor_pkey,
    ADD CONSTRAINT monitor_pkey PRIMARY KEY (id, project_id),
    DROP CONSTRAINT monitor_ping_id_unique,
    ADD CONSTRAINT monitor_ping_id_unique UNIQUE (ping_id, project_id);
DROP INDEX monitor_entry_unique;
CREATE UNIQUE INDEX monitor_entry_unique ON monitor (beat_id, entry, project_id) WHERE beat_id IS NOT NULL;

ALTER TABLE ping DROP CONSTRAINT ping_number, ADD CONSTRAINT ping_number PRIMARY KEY (monitor_id, n, received_at, project_id);
ALTER TABLE ping_body
    DROP CONSTRAINT ping_body_number,
    ADD CONSTRAINT ping_body_number PRIMARY KEY (monitor_id, n, received_at, project_id);

ALTER TABLE delivery DROP CONSTRAINT delivery_pkey, ADD CONSTRAINT delivery_pkey PRIMARY KEY (id, project_id);
DROP INDEX delivery_once;
CREATE UNIQUE INDEX delivery_once ON delivery
    (incident_id, channel_id, (CASE WHEN alert IN ('opened', 'resolved') THEN alert ELSE id::text END), project_id);
DROP INDEX delivery_notice_once;
CREATE UNIQUE INDEX delivery_notice_once ON delivery (channel_id, project_id) WHERE notice_of IS NOT NULL AND next_attempt_at IS NOT NULL;

-- The claim asks for a project's channel. Old code walks the deliveries of the channel by `delivery_channel` meanwhile.
DROP INDEX delivery_first;
CREATE INDEX delivery_first ON delivery (project_id, channel_id, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL AND (alert = 'opened' OR incident_id IS NULL);

-- Of two keys that a row conflicts with, PostgreSQL looks at the older index first. It must be the one that the new code's `ON CONFLICT` names.
ALTER TABLE run DROP CONSTRAINT run_pkey, ADD CONSTRAINT run_pkey PRIMARY KEY (monitor_id, id, project_id);
CREATE UNIQUE INDEX run_before ON run (id);
DROP INDEX run_monitor;
DROP INDEX run_open;
CREATE UNIQUE INDEX run_open ON run (monitor_id, run_id, project_id) NULLS NOT DISTINCT WHERE status = 'open';

ALTER TABLE baseline DROP CONSTRAINT baseline_pkey, ADD CONSTRAINT baseline_pkey PRIMARY KEY (monitor_id, project_id);
CREATE UNIQUE INDEX baseline_before ON baseline (monitor_id);

ALTER TABLE incident DROP CONSTRAINT incident_pkey, ADD CONSTRAINT incident_pkey PRIMARY KEY (id, project_id);
DROP INDEX incident_open;
CREATE UNIQUE INDEX incident_open ON incident (subject_kind, subject_id, project_id) WHERE resolved_at IS NULL;
CREATE UNIQUE INDEX incident_before ON incident (subject_kind, subject_id) WHERE resolved_at IS NULL;

ALTER TABLE incident_member
    DROP CONSTRAINT incident_member_pkey,
    ADD CONSTRAINT incident_member_pkey PRIMARY KEY (incident_id, monitor_id, project_id);
CREATE UNIQUE INDEX incident_member_before ON incident_member (incident_id, monitor_id);

ALTER TABLE host_part
    DROP CONSTRAINT host_part_pkey,
    ADD CONSTRAINT host_part_pkey PRIMARY KEY (incident_id, part_id, project_id);
CREATE UNIQUE INDEX host_part_before ON host_part (incident_id, part_id);

ALTER TABLE attempt
    DROP CONSTRAINT attempt_pkey,
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (delivery_id, number, project_id);
CREATE UNIQUE INDEX attempt_before ON attempt (delivery_id, number);

ALTER TABLE monitor_channel
    DROP CONSTRAINT monitor_channel_pkey,
    ADD CONSTRAINT monitor_channel_pkey PRIMARY KEY (monitor_id, channel_id, project_id);

ALTER TABLE monitor
    ADD CONSTRAINT monitor_beat_id_fkey FOREIGN KEY (beat_id, project_id) REFERENCES beat (id, project_id) ON DELETE SET NULL (beat_id);
ALTER TABLE baseline
    ADD CONSTRAINT baseline_monitor_id_fkey FOREIGN KEY (monitor_id, project_id) REFERENCES monitor (id, project_id) ON DELETE CASCADE;
ALTER TABLE monitor_channel
    ADD CONSTRAINT monitor_channel_monitor_id_fkey FOREIGN KEY (monitor_id, project_id) REFERENCES monitor (id, project_id) ON DELETE CASCADE,
    ADD CONSTRAINT monitor_channel_channel_id_fkey FOREIGN KEY (channel_id, project_id) REFERENCES channel (id, project_id) ON DELETE CASCADE;
ALTER TABLE incident_member
    ADD CONSTRAINT incident_member_incident_id_fkey FOREIGN KEY (incident_id, project_id) REFERENCES incident (id, project_id) ON DELETE CASCADE;
ALTER TABLE host_part
    ADD CONSTRAINT host_part_incident_id_fkey FOREIGN KEY (incident_id, project_id) REFERENCES incident (id, project_id) ON DELETE CASCADE;
ALTER TABLE attempt
    ADD CONSTRAINT attempt_delivery_id_fkey FOREIGN KEY (delivery_id, project_id) REFERENCES delivery (id, project_id) ON DELETE CASCADE;

-- What goes with a channel or an incident is looked for in its project.
CREATE OR REPLACE FUNCTION remove_of_channels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM delivery USING gone WHERE delivery.channel_id = gone.id AND delivery.project_id = gone.project_id;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION remove_of_incidents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM delivery USING gone WHERE delivery.incident_id = gone.id AND delivery.project_id = gone.project_id;
    RETURN NULL;
END
$$;
