-- Drops the index that `run_of_id` (0017) replaces.
--
-- In a migration of its own: a writer that has read `run`, and waits to write it while 0017 builds its index, would deadlock with a DROP
-- in the same transaction. Old code uses the new index.

DROP INDEX run_run_id;
