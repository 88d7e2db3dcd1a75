-- The server sends one more reminder about an incident that lasts 14 days (docs/alerting.md). The column says when the server wrote that
-- reminder. The reminder comes also where reminders are off or where somebody acknowledged the incident.
--
-- Incidents that are older than 14 days at the upgrade get no such reminder: people had messages about them. Old code does not know the
-- column. Incidents that old code opens get the reminder all the same.

ALTER TABLE incident ADD COLUMN long_reminded_at timestamptz;

UPDATE incident SET long_reminded_at = now() WHERE resolved_at IS NULL AND opened_at <= now() - interval '14 days';

-- The evaluator asks for the oldest open incident without this reminder.
CREATE INDEX incident_long_down ON incident (opened_at) WHERE resolved_at IS NULL AND long_reminded_at IS NULL;
