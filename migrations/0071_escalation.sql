-- The next step of each incident that escalates (ADR 036). Whoever acknowledges or resolves the incident removes the row in the same
-- transaction. A row that stays behind, because old code acknowledged or resolved the incident, goes when its step is due.
--
-- The code of the last release does not know the table: incidents that it opens do not escalate.

CREATE TABLE escalation (
    incident_id uuid NOT NULL,
    project_id  uuid NOT NULL,
    -- No foreign key: a policy may be deleted while incidents open under it, and must not make their transactions fail. An escalation whose
    -- policy is gone ends when its step is due.
    policy_id   uuid NOT NULL,
    -- Counted from 0.
    step        integer NOT NULL,
    round       integer NOT NULL,
    due_at      timestamptz NOT NULL,
    CONSTRAINT escalation_pkey PRIMARY KEY (incident_id, project_id),
    CONSTRAINT escalation_incident_fkey FOREIGN KEY (incident_id, project_id)
        REFERENCES incident (id, project_id) ON DELETE CASCADE,
    CONSTRAINT escalation_place CHECK (step >= 0 AND round >= 0)
);
-- The evaluator's question: is any due?
CREATE INDEX escalation_due ON escalation (due_at);
