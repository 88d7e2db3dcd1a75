-- Whose signals a process has set aside.
--
-- A process set a signal aside when its monitor's row was locked for over a second. Its stamp then counted as "signals are spooled", so
-- nobody was judged for up to 30 s, in any project. The stamp now names the monitors, and only those are not judged.
--
-- Old code counts such signals in `spooled`, as before, and leaves `aside` empty.

ALTER TABLE listener
    -- Monitors with signals that this process set aside a moment ago. They are not judged before these are written.
    ADD COLUMN aside uuid[] NOT NULL DEFAULT '{}';
