-- Kinds of channels are listed in the server alone, and each kind of alert is told apart.
--
-- A new kind of channel needs no migration from here on. `alert` names more than incidents and tests: the notice that a channel was
-- switched off, the notice of a blind spell, and the question for a confirmation had been written as `test`. Rows that exist stay as they
-- are, and are sent as they are: what is sent stands in `payload`.
--
-- Old code sees meanwhile:
-- * Deliveries of the new kinds of alerts. It cannot read them, logs an error, and leaves each until the claim's lease of 60 s ends. Then
--   new code may take the delivery. So such a notice can be some minutes late during an upgrade. Alerts about incidents do not change.
-- * No channel of a kind that it does not know, until somebody adds one: then it can list no channels of that project, and leaves what
--   goes to the channel to new code. Add channels of new kinds when the upgrade has ended.
-- * A claim without its index: it walks the deliveries of one channel by `delivery_channel` instead.

ALTER TABLE channel
    DROP CONSTRAINT channel_kind,
    ADD CONSTRAINT channel_kind_form CHECK (kind ~ '^[a-z][a-z0-9_]{0,39}$');

-- Every row satisfied the narrower list, so nothing needs to be read for this.
ALTER TABLE delivery DROP CONSTRAINT delivery_alert;
ALTER TABLE delivery ADD CONSTRAINT delivery_alert CHECK (alert IN ('opened', 'reminder', 'acknowledged', 'resolved', 'escalated', 'test',
    'channel_disabled', 'blind_spell', 'confirmation')) NOT VALID;

-- The deliveries that never wait for an earlier one: the first of an incident, and those of no incident.
DROP INDEX delivery_first;
CREATE INDEX delivery_first ON delivery (channel_id, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL AND (alert = 'opened' OR incident_id IS NULL);
