-- Rules of channels, and deliveries that wait for a time (docs/adr/035-what-holds-an-alert.md).
--
-- Old code ignores the rules: until the last old process ends, alerts that it writes go to every channel at once. It does not send what waits
-- before its time, because `next_attempt_at` is that time. It cancels as too old what waits for more than a day.

ALTER TABLE channel
    -- What it hears and when, as the API shows it. NULL: everything, at once.
    ADD COLUMN rules jsonb,
    ADD CONSTRAINT channel_rules_size CHECK (pg_column_size(rules) <= 65536);
ALTER TABLE delivery
    -- Held: not sent before this time. NULL: it was due at once.
    ADD COLUMN not_before timestamptz;
-- What waits for somebody to end a mute, or for other rules.
CREATE INDEX delivery_withheld ON delivery (project_id, id) WHERE cancel_reason IN ('muted', 'rules');
