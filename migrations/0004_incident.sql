-- What went wrong: changes of status, and the incidents that they open and end.

CREATE TABLE transition (
    id           uuid PRIMARY KEY,
    project_id   uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    subject_kind text NOT NULL,
    subject_id   uuid NOT NULL,
    from_status  text NOT NULL,
    to_status    text NOT NULL,
    cause        text NOT NULL,
    at           timestamptz NOT NULL,
    CONSTRAINT transition_subject_kind CHECK (subject_kind IN ('monitor', 'beat')),
    CONSTRAINT transition_changes CHECK (from_status <> to_status)
);
-- A subject's history.
CREATE INDEX transition_subject ON transition (subject_kind, subject_id, id);

CREATE TABLE incident (
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    subject_kind    text NOT NULL,
    subject_id      uuid NOT NULL,
    -- As it was called then: the subject may be renamed or deleted.
    subject_name    text NOT NULL,
    cause           text NOT NULL,
    summary         text NOT NULL,
    evidence        jsonb NOT NULL,
    repair          jsonb NOT NULL,
    opened_at       timestamptz NOT NULL,
    resolved_at     timestamptz,
    acknowledged_at timestamptz,
    -- When to tell it again while it is open; NULL: never.
    remind_at       timestamptz,
    CONSTRAINT incident_subject_kind CHECK (subject_kind IN ('monitor', 'beat')),
    CONSTRAINT incident_resolved_after_opened CHECK (resolved_at >= opened_at),
    CONSTRAINT incident_quiet_when_over CHECK (remind_at IS NULL OR (resolved_at IS NULL AND acknowledged_at IS NULL))
);
-- Exactly one open incident a subject, whoever tries to open it.
CREATE UNIQUE INDEX incident_open ON incident (subject_kind, subject_id) WHERE resolved_at IS NULL;
-- Lists, newest first.
CREATE INDEX incident_project ON incident (project_id, id);
-- The sweep's question: which open incidents are to be told again?
CREATE INDEX incident_remind ON incident (remind_at) WHERE remind_at IS NOT NULL;

-- Monitors that are down because of another subject's incident: listed there, not alerted one by one.
CREATE TABLE incident_member (
    incident_id uuid NOT NULL REFERENCES incident ON DELETE CASCADE,
    monitor_id  uuid NOT NULL REFERENCES monitor ON DELETE CASCADE,
    joined_at   timestamptz NOT NULL,
    PRIMARY KEY (incident_id, monitor_id)
);
-- A monitor's membership, when it recovers or is deleted.
CREATE INDEX incident_member_monitor ON incident_member (monitor_id);
