-- Two columns had two meanings each. Each meaning now has a column of its own.
--
-- `monitor.deadline_at`: while a monitor was held for the verdict on another subject, its deadline was moved to the end of the hold. Now
-- `deadline_at` is the deadline alone, and `hold_until` is the end of the hold.
-- `run.deadline_at`: of a run whose message was executed several times, it also told when the end of one execution was received: seven seconds
-- before. Now `ended_at` says that, and `deadline_at` only says when the run is judged.
--
-- Expand. The code of the last release neither reads nor writes the new columns. For a held monitor it finds a deadline that has passed,
-- judges the monitor when `check_after` comes, as the new code does, and holds it again if it must. It then moves `deadline_at`; the new code
-- judges the monitor at that instant. Where `ended_at` is missing, the new code takes the deadline less seven seconds.

ALTER TABLE monitor
    ADD COLUMN hold_until timestamptz,
    DROP CONSTRAINT monitor_check_after,
    -- NOT VALID saves a scan under the lock: each row satisfied the narrower constraint that goes.
    ADD CONSTRAINT monitor_check_after
        CHECK (check_after IS NULL OR deadline_at IS NULL OR check_after <= greatest(deadline_at, hold_until)) NOT VALID;

ALTER TABLE run ADD COLUMN ended_at timestamptz;
