-- After how many bad runs in a row a monitor's incident opens, and after how many good ones it ends (ADR 038).
--
-- The code of the last release neither reads nor writes the columns. While it runs beside this one, it opens an incident after the first bad run,
-- and ends it after the first good one. It neither arms a monitor that is down; the next signal that new code writes does.

ALTER TABLE monitor
    ADD COLUMN failure_threshold  smallint NOT NULL DEFAULT 1,
    ADD COLUMN recovery_threshold smallint NOT NULL DEFAULT 1,
    -- Where the own incident stands beside the status. NULL: it is open while the monitor is down. member: the monitor is down only as a member of
    -- another subject's incident. bad: the incident waits for more bad runs. good: it is open and waits for more good runs.
    ADD COLUMN alarm              text,
    -- The runs in a row so far, of `bad` and `good`; and when the first one was known.
    ADD COLUMN streak             smallint,
    ADD COLUMN streak_since       timestamptz,
    -- NOT VALID saves a scan under the lock: every row has the defaults.
    ADD CONSTRAINT monitor_failure_threshold CHECK (failure_threshold BETWEEN 1 AND 100) NOT VALID,
    ADD CONSTRAINT monitor_recovery_threshold CHECK (recovery_threshold BETWEEN 1 AND 100) NOT VALID,
    ADD CONSTRAINT monitor_alarm CHECK (alarm IN ('member', 'bad', 'good')) NOT VALID,
    ADD CONSTRAINT monitor_streak CHECK (
        (streak IS NULL) = (streak_since IS NULL) AND (streak IS NOT NULL) = coalesce(alarm IN ('bad', 'good'), false)
    ) NOT VALID;
