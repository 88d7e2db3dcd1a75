-- The message that a channel shows of an incident, as the service names it, and the label of a failed attempt.
--
-- Chat services can change a message that they have. A later alert of the incident then changes the message instead of sending another
-- one. The handle is what such a change needs, for example Slack's channel and `ts`. It is no secret, and 2 KB hold it.
--
-- Old code writes neither: a later alert of its incidents is a new message, and its failed attempts have no label.

CREATE TABLE message_handle (
    incident_id uuid NOT NULL,
    channel_id  uuid NOT NULL,
    project_id  uuid NOT NULL,
    handle      jsonb NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT message_handle_pkey PRIMARY KEY (incident_id, channel_id, project_id),
    CONSTRAINT message_handle_incident_fkey FOREIGN KEY (incident_id, project_id)
        REFERENCES incident (id, project_id) ON DELETE CASCADE,
    CONSTRAINT message_handle_channel_fkey FOREIGN KEY (channel_id, project_id)
        REFERENCES channel (id, project_id) ON DELETE CASCADE,
    CONSTRAINT message_handle_size CHECK (pg_column_size(handle) <= 4096)
);
-- A deleted channel finds its handles.
CREATE INDEX message_handle_channel ON message_handle (channel_id, project_id);

-- Why an attempt did not succeed; `Reason` of domain/alert/delivery.rs has the list. NULL: it succeeded, or old code wrote it.
ALTER TABLE attempt ADD COLUMN reason text;
