-- Runs that Beat sent and that no worker has taken yet, as of their last commit. A run whose message is lost while later ones of its
-- entry run is found here: its monitor stays up, since a later report satisfies the slot. A run that is published and taken in one batch
-- never comes in here. An index on `trace` that says the same would make each of its updates a cold one.
--
-- Old code that runs beside the new one during an upgrade writes no rows here, and removes none. The runs whose rows stay are looked at
-- once more by the new code, which removes what has begun, and everything that is older than an hour.

CREATE TABLE unbegun_run (
    project_id   uuid NOT NULL,
    run_id       uuid NOT NULL,
    monitor_id   uuid NOT NULL,
    published_at timestamptz NOT NULL,
    -- When it is looked at next.
    check_after  timestamptz NOT NULL,
    CONSTRAINT unbegun_run_pkey PRIMARY KEY (project_id, run_id)
);
CREATE INDEX unbegun_run_check ON unbegun_run (check_after);

CREATE FUNCTION delete_unbegun_runs_of_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM unbegun_run WHERE project_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER project_unbegun_runs AFTER DELETE ON project FOR EACH ROW EXECUTE FUNCTION delete_unbegun_runs_of_project();
