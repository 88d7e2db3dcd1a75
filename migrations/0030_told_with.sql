-- The answer to a report names queues to look at. It named those of the whole application to every ping key, which may not read. Now it leaves out
-- what only another key has named.
--
-- The code of the last release neither reads nor writes these columns. NULL: written before this column was there, and named to every key.
ALTER TABLE worker
    -- The key with which it last reported.
    ADD COLUMN told_with uuid;
ALTER TABLE queue
    -- The key with which somebody last reported it.
    ADD COLUMN told_with uuid;
