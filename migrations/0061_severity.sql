-- How bad an incident is (docs/alerting.md): channels choose by it what they hear, and quiet hours let `critical` pass.
--
-- Old code writes neither column. Incidents that it opens get the severity of their cause when they are read.

ALTER TABLE monitor
    -- What a person set for the monitor's own incidents. NULL: each cause's severity.
    ADD COLUMN severity text,
    ADD CONSTRAINT monitor_severity CHECK (severity IN ('info', 'warning', 'critical'));
ALTER TABLE incident
    -- As it was when the incident opened. NULL: that of its cause.
    ADD COLUMN severity text,
    ADD CONSTRAINT incident_severity CHECK (severity IN ('info', 'warning', 'critical'));
