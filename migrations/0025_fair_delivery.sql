-- Fair shares in the outbox, an order that no host's clock can change, and notices of failed channels that cannot multiply.
--
-- Old code sees no difference: every new column has a default. Its deliveries get a sequence too. Its claim ignores the new indexes.

-- The order of an incident's deliveries. Ids come from the clocks of hosts, which differ; a sequence of the database does not.
-- Rows that exist keep 0 and are ordered by id among themselves. A constant default rewrites no row.
CREATE SEQUENCE delivery_sequence;
ALTER TABLE delivery
    ADD COLUMN sequence      bigint NOT NULL DEFAULT 0,
    -- Why it was cancelled: not_confirmed, channel_disabled. NULL: it was not, or old code did it.
    ADD COLUMN cancel_reason text,
    -- The failed channel that this notice tells of. NULL: it is no such notice.
    ADD COLUMN notice_of     uuid;
ALTER TABLE delivery ALTER COLUMN sequence SET DEFAULT nextval('delivery_sequence');
ALTER SEQUENCE delivery_sequence OWNED BY delivery.sequence;

-- The fair claim steps from channel to channel of each project, and reads the oldest deliveries of one channel.
CREATE INDEX delivery_waiting ON delivery (project_id, channel_id, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- Of these, the deliveries that never wait for an earlier one. Reminders and all-clears that wait cannot hide them.
CREATE INDEX delivery_first ON delivery (channel_id, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL AND alert IN ('opened', 'test');
-- A channel gets one notice at a time.
CREATE UNIQUE INDEX delivery_notice_once ON delivery (channel_id) WHERE notice_of IS NOT NULL AND next_attempt_at IS NOT NULL;

ALTER TABLE channel
    -- Since when its attempts fail without a success between them. Failures of other channels are not told through it.
    ADD COLUMN failing_since timestamptz,
    -- When the project's other channels were last told that this one failed.
    ADD COLUMN told_of_at    timestamptz;

-- How much of a quota is used up. A key names the quota and whose it is, such as `test:<project>`.
CREATE TABLE quota (
    key      text PRIMARY KEY,
    used     integer NOT NULL,
    -- The end of the window in which `used` counts; later the count begins anew.
    ends_at  timestamptz NOT NULL,
    CONSTRAINT quota_key_length CHECK (length(key) <= 400)
);
-- Removal of windows that have ended.
CREATE INDEX quota_ends ON quota (ends_at);
