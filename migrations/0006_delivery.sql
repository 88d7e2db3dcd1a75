-- The outbox: one alert to one channel is a delivery, each try an attempt.

CREATE TABLE delivery (
    -- Also the webhook-id: the receiver drops a repetition by it.
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    channel_id      uuid NOT NULL REFERENCES channel ON DELETE CASCADE,
    -- NULL: a test that a person asked for.
    incident_id     uuid REFERENCES incident ON DELETE CASCADE,
    alert           text NOT NULL,
    -- What is told, as it was when it happened: every attempt sends the same.
    payload         jsonb NOT NULL,
    status          text NOT NULL,
    attempt_count   integer NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    -- Pending: when to try next, or, while leased, when the lease ends.
    next_attempt_at timestamptz,
    -- Names the claim that holds it; settling repeats it, so a lost lease settles nothing.
    lease           uuid,
    settled_at      timestamptz,
    CONSTRAINT delivery_alert CHECK (alert IN ('opened', 'reminder', 'resolved', 'test')),
    CONSTRAINT delivery_status CHECK (status IN ('pending', 'sent', 'dead', 'cancelled')),
    CONSTRAINT delivery_pending_has_next CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT delivery_settled_has_end CHECK ((status = 'pending') = (settled_at IS NULL))
);
-- The delivery loop's claim.
CREATE INDEX delivery_due ON delivery (next_attempt_at) WHERE status = 'pending';
-- Order within an incident and channel; an incident is opened and resolved once a channel.
CREATE INDEX delivery_order ON delivery (incident_id, channel_id, id);
CREATE UNIQUE INDEX delivery_once ON delivery (incident_id, channel_id, alert) WHERE alert IN ('opened', 'resolved');
-- Lists, newest first.
CREATE INDEX delivery_project ON delivery (project_id, id);
-- Deleting a channel.
CREATE INDEX delivery_channel ON delivery (channel_id);

CREATE TABLE attempt (
    delivery_id     uuid NOT NULL REFERENCES delivery ON DELETE CASCADE,
    number          integer NOT NULL,
    started_at      timestamptz NOT NULL,
    duration_ms     integer NOT NULL,
    outcome         text NOT NULL,
    -- HTTP or SMTP code, where one came back.
    response_code   integer,
    -- What a person needs to repair it.
    detail          text,
    PRIMARY KEY (delivery_id, number),
    CONSTRAINT attempt_outcome CHECK (outcome IN ('sent', 'retry', 'failed'))
);
