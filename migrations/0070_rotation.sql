-- Rotations (who is on call) and escalation policies (who hears of an incident that nobody acknowledges), ADR 036.
--
-- The settings are JSON, which the server checks before it writes them (`Rotation::read` and `Policy::read` of domain/alert). No foreign key
-- leads from them to channels and rotations. Whoever writes settings locks what they name, and whoever deletes a channel or a rotation locks
-- it first and then looks for its name.
--
-- The code of the last release knows neither table. It deletes a channel that a rotation or a policy names; a step then leaves it out.

CREATE TABLE rotation (
    id         uuid NOT NULL,
    project_id uuid NOT NULL,
    settings   jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT rotation_pkey PRIMARY KEY (id, project_id),
    CONSTRAINT rotation_project_fkey FOREIGN KEY (project_id) REFERENCES project ON DELETE CASCADE
);
-- A project's rotations.
CREATE INDEX rotation_project ON rotation (project_id, id);

CREATE TABLE escalation_policy (
    id         uuid NOT NULL,
    project_id uuid NOT NULL,
    settings   jsonb NOT NULL,
    -- The tags of its monitors, as in the settings. NULL: it is the project's default.
    tags       text[],
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT escalation_policy_pkey PRIMARY KEY (id, project_id),
    CONSTRAINT escalation_policy_project_fkey FOREIGN KEY (project_id) REFERENCES project ON DELETE CASCADE
);
-- A project's policies.
CREATE INDEX escalation_policy_project ON escalation_policy (project_id, id);
-- A project has one default.
CREATE UNIQUE INDEX escalation_policy_default ON escalation_policy (project_id) WHERE tags IS NULL;
