-- The audit trail: who changed what in a project, when, and from where (ADR 044). An entry is written in the transaction of the change, names the
-- changed fields and holds no values.
--
-- The code of the last release writes nothing here: while both versions run, its changes have no entry.

CREATE TABLE audit_entry (
    -- A UUID v7: the entries of a project sort by their time.
    id           uuid NOT NULL,
    project_id   uuid NOT NULL,
    at           timestamptz NOT NULL,
    -- The server lists the kinds and acts (server/domain/src/people/audit.rs): a new one needs no migration.
    actor_kind   text NOT NULL,
    -- No foreign key: the entry stays when the account, the key or the changed thing is deleted.
    actor_id     uuid,
    remote_addr  text,
    action       text NOT NULL,
    subject_id   uuid NOT NULL,
    subject_name text,
    changed      text[] NOT NULL,
    CONSTRAINT audit_entry_pkey PRIMARY KEY (id, project_id),
    CONSTRAINT audit_entry_bounds CHECK (
        length(subject_name) <= 200 AND length(remote_addr) <= 50 AND length(action) <= 100 AND cardinality(changed) <= 50
    )
);
-- The page of a project, newest first; and the pages of one thing, of one actor.
CREATE INDEX audit_entry_project ON audit_entry (project_id, id);
CREATE INDEX audit_entry_subject ON audit_entry (project_id, subject_id, id);
CREATE INDEX audit_entry_actor ON audit_entry (project_id, actor_id, id) WHERE actor_id IS NOT NULL;

CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the audit trail cannot be changed';
END
$$;
CREATE TRIGGER audit_entry_stays BEFORE UPDATE ON audit_entry FOR EACH ROW EXECUTE FUNCTION refuse_change_of_audit();

CREATE FUNCTION remove_audit_of_projects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM audit_entry USING gone WHERE project_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER project_audit AFTER DELETE ON project
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_audit_of_projects();
