-- How long after a slot Beat lets a run begin at the earliest, in seconds: the countdown of its entry.
--
-- Without it an entry with a countdown that is longer than its grace was called missed at each of its slots.
--
-- Old code neither reads nor writes the column: it goes on calling such entries missed, and registers them without a delay. The SDK
-- sends its schedule again within ten minutes.

ALTER TABLE monitor ADD COLUMN delay_seconds double precision NOT NULL DEFAULT 0
    CONSTRAINT monitor_delay_seconds CHECK (delay_seconds BETWEEN 0 AND 31622400);
