-- A queue that no reporting worker consumes was called unconsumed, although workers without the SDK may consume it. What leaves a queue shows it.
--
-- The code of the last release neither reads nor writes these columns. What it writes meanwhile leaves them as they are: the first look of
-- the new code then sees another head, and takes the queue for consumed by others for ten minutes at most.
ALTER TABLE queue
    -- Stands for the message that is taken next; NULL: the queue is empty, or its broker does not show it.
    ADD COLUMN head text,
    -- Since when that message is the head.
    ADD COLUMN head_since timestamptz,
    -- When a worker that consumes it, and reports, was last heard from.
    ADD COLUMN attended_at timestamptz,
    -- When somebody who does not report was last seen to take messages from it.
    ADD COLUMN others_at timestamptz;
