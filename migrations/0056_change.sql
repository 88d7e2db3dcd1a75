-- The change feed: what changed in a project, for readers that poll (ADR 034). Each row names what changed and holds no values.
--
-- A sequence from PostgreSQL would be visible out of order: a transaction with a lower number may commit later, and a reader has gone past
-- it. So each project counts its own changes in one row, `change_counter`. A transaction updates that row with its last statement before the
-- commit, and PostgreSQL keeps the row locked until the commit is visible. So the order of the numbers is the order of the commits, and no
-- number is missing.
--
-- The code of the last release writes nothing here: while both versions run, readers do not learn of what the old one changes. Readers
-- exist only in the new release.

-- The newest sequence of each project. The row of a project stays when its changes are removed.
CREATE TABLE change_counter (
    -- No foreign key, here and below: its check would lock the project's row in transactions that already hold monitors, and whoever
    -- deletes the project takes these locks the other way round.
    project_id uuid NOT NULL,
    last       bigint NOT NULL,
    CONSTRAINT change_counter_pkey PRIMARY KEY (project_id),
    CONSTRAINT change_counter_last CHECK (last > 0)
    -- Half of a page stays free: its updates are HOT.
) WITH (fillfactor = 50);

CREATE TABLE change (
    project_id   uuid NOT NULL,
    sequence     bigint NOT NULL,
    at           timestamptz NOT NULL,
    -- The server lists the kinds (server/domain/src/change/feed.rs): a new one needs no migration.
    subject_kind text NOT NULL,
    subject_id   uuid NOT NULL,
    what         text NOT NULL,
    -- The reader's question, and the retention's.
    CONSTRAINT change_pkey PRIMARY KEY (project_id, sequence),
    CONSTRAINT change_sequence CHECK (sequence > 0)
);

CREATE FUNCTION remove_changes_of_projects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM change_counter USING gone WHERE project_id = gone.id;
    DELETE FROM change USING gone WHERE project_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER project_changes AFTER DELETE ON project
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_changes_of_projects();
