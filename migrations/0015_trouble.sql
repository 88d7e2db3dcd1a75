-- What is wrong with a Beat or a worker that is heard from, what makes a run more than a start and an end, and how long runs take.
--
-- Old code writes none of it: the defaults say "not known".

ALTER TABLE beat
    -- What stands behind `celery -A` where it runs.
    ADD COLUMN project_word   text,
    ADD COLUMN trouble        text,
    -- Since when that has been seen: told when it has lasted.
    ADD COLUMN trouble_since  timestamptz,
    -- When its process last said that it hangs.
    ADD COLUMN hung_at        timestamptz,
    -- When it last sent any entry, and when the broker last took none from it.
    ADD COLUMN sent_at        timestamptz,
    ADD COLUMN send_failed_at timestamptz,
    ADD COLUMN send_error     text;

ALTER TABLE worker
    ADD COLUMN trouble       text,
    ADD COLUMN trouble_since timestamptz;

-- Since when messages have been waiting in it without a moment in which none did; NULL: none wait.
ALTER TABLE queue ADD COLUMN waiting_since timestamptz;

-- The slot that Beat put off when it was started without knowing when it had last sent the entry.
ALTER TABLE monitor ADD COLUMN postponed_from timestamptz;

ALTER TABLE run
    -- How it ended badly, or is about to (domain, run.rs, Outcome).
    ADD COLUMN outcome  text,
    -- Which execution of its message was begun last, and how many were since its last retry.
    ADD COLUMN attempt  uuid,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    -- It was begun more than once (domain, run.rs, Contest).
    ADD COLUMN contest  text,
    -- The events that it is made of: sent again, they change nothing.
    ADD COLUMN events   uuid[] NOT NULL DEFAULT '{}';

-- How long the runs of a Beat's entry take, learned from those that ended well (domain, baseline.rs); in seconds.
CREATE TABLE baseline (
    monitor_id uuid PRIMARY KEY REFERENCES monitor ON DELETE CASCADE,
    -- Nobody has said how long one may take.
    bounds     boolean NOT NULL,
    runs       integer NOT NULL,
    usual      double precision NOT NULL,
    shortest   double precision NOT NULL,
    longest    double precision NOT NULL
) WITH (fillfactor = 50);
