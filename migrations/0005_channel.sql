-- Whom to tell: channels, and which monitors use them.

CREATE TABLE channel (
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES project ON DELETE CASCADE,
    kind            text NOT NULL,
    name            text NOT NULL,
    settings        jsonb NOT NULL,
    -- Signs webhooks (Standard Webhooks); must be readable to sign, so it is not a digest.
    signing_secret  text,
    -- Set by a permanent failure; the reason is what a person must repair.
    disabled_at     timestamptz,
    disabled_reason text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT channel_kind CHECK (kind IN ('webhook', 'email')),
    CONSTRAINT channel_name_length CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT channel_webhook_signs CHECK (kind <> 'webhook' OR signing_secret IS NOT NULL),
    CONSTRAINT channel_disabled_reason CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
-- A project's channels.
CREATE INDEX channel_project ON channel (project_id, id);

CREATE TABLE monitor_channel (
    monitor_id uuid NOT NULL REFERENCES monitor ON DELETE CASCADE,
    channel_id uuid NOT NULL REFERENCES channel ON DELETE CASCADE,
    PRIMARY KEY (monitor_id, channel_id)
);
-- Deleting a channel.
CREATE INDEX monitor_channel_channel ON monitor_channel (channel_id);
