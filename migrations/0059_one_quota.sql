-- One table counts how often something may happen in a window of time: `quota`. Table `allowance` did the same for two things, with a rule of
-- its own.
--
-- The last release (0.1.0) knows neither table. A server of a later build that still runs beside this one cannot create monitors by ping keys
-- and issue keys: it answers 503 for these until it is stopped.

ALTER TABLE quota
    ALTER COLUMN used TYPE bigint,
    ADD CONSTRAINT quota_used CHECK (used >= 0);

INSERT INTO quota (key, used, ends_at)
SELECT what || ':' || project_id, used, began_at + interval '1 day'
FROM allowance;

DROP TABLE allowance;
