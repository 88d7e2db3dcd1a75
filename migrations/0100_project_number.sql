-- Each project gets a number. Clients of Sentry accept only a number as the project in their DSN (ADR 051), and a UUID is none.
--
-- The code of the last release neither reads nor writes the column: the database numbers the projects that it creates. The column is written
-- into every row under an exclusive lock. The table has a row per project, not per monitor, so that takes milliseconds.

ALTER TABLE project ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
ALTER TABLE project ADD CONSTRAINT project_number_unique UNIQUE (number);
