-- A broker was called away when the one process that looks at it could not reach it, although others could. Now it is told of that process.
--
-- The code of the last release neither reads nor writes these columns.
ALTER TABLE broker
    -- When somebody last reached it, and who.
    ADD COLUMN reached_at timestamptz,
    ADD COLUMN reached_by text,
    -- Who could not reach it at the last try, since when, and when that was.
    ADD COLUMN failed_by text,
    ADD COLUMN failed_since timestamptz,
    ADD COLUMN failed_at timestamptz;
