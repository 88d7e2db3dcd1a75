-- A process that takes signals in and goes silent without signing off may hold signals that it acknowledged (ADR 025): judgement waits for it.
--
-- Old code stamps without this column: nobody waits for an old process, as before. Old evaluators do not look at it.

ALTER TABLE listener
    -- Until then others wait for this process. NULL: it holds nothing (it signed off, or has no spool).
    ADD COLUMN awaited_until timestamptz;
