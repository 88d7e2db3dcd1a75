-- Applications that are gone with an incident open, clients that lost events, runs that are too short to learn from,
-- and how long messages wait where the broker does not tell.
--
-- Old code writes none of it.

-- Which applications have a broker or a queue that is told to be in trouble?
CREATE INDEX broker_down ON broker (project_id, app) WHERE status = 'down';
CREATE INDEX queue_down ON queue (project_id, app) WHERE status = 'down';

ALTER TABLE beat
    -- When a process of its application last said that it had to drop events, and how many.
    ADD COLUMN lost_at     timestamptz,
    ADD COLUMN lost_events bigint;

-- How many of the last runs were far too short; nothing was learned from these.
ALTER TABLE baseline ADD COLUMN odd integer NOT NULL DEFAULT 0;

ALTER TABLE queue
    -- How long the message waited that a worker took last, as far as that is told, and when it did: RabbitMQ does not say how old a message is.
    ADD COLUMN taken_after_seconds double precision,
    ADD COLUMN taken_at            timestamptz;
-- That age is no more than a guess: the broker does not show it.
ALTER TABLE queue ADD COLUMN oldest_is_a_guess boolean NOT NULL DEFAULT false;
