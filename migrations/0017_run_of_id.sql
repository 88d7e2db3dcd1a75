-- The newest runs of a run id are found without reading its other runs: a client that sends the same `rid` with every ping adds a row
-- with each of them, and a signal loads only the newest few (`store/run.rs`).
--
-- Pings that write runs wait, or go to the spool, while this index is built. Old code uses it, too. 0018 drops the one that it replaces.

CREATE INDEX run_of_id ON run (monitor_id, run_id, id) WHERE run_id IS NOT NULL;
