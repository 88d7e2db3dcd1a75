-- The order of signals when spools of several processes are replayed one after the other (ADR 024): what was received before a known decision
-- changes no status, and a start that was received before a known end opens no run.
--
-- Old code reads and writes neither column, so it judges in the order of replay, as before. What it leaves unset or out of date, the next
-- signal that new code writes repairs.

ALTER TABLE monitor
    -- When the newest success or failure that was counted was received, or when a person last paused or resumed it.
    ADD COLUMN decided_at   timestamptz,
    -- When the newest success or failure without a run id was received.
    ADD COLUMN plain_end_at timestamptz;
