-- A monitor that goes down and up again and again is one incident that says so (ADR 038).
--
-- The code of the last release neither reads nor writes the columns. While it runs beside this one, it ends the incident of a monitor that flaps with
-- the next success, and it may put off the end of the flapping to the monitor's next deadline.

ALTER TABLE monitor
    -- When the own incident opened lately: three times at most.
    ADD COLUMN opened_lately  timestamptz[],
    -- It flaps: since when, and when that ends unless the status changes before. NULL: it does not.
    ADD COLUMN flapping_since timestamptz,
    ADD COLUMN calm_at        timestamptz,
    -- NOT VALID saves a scan under the lock: every row has NULL.
    ADD CONSTRAINT monitor_flapping CHECK ((flapping_since IS NULL) = (calm_at IS NULL)) NOT VALID;
ALTER TABLE incident
    -- Its monitor flaps: the incident stays open while the status changes.
    ADD COLUMN flapping boolean NOT NULL DEFAULT false;
