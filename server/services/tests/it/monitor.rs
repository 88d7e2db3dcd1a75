//! Signals, and the monitors that receive them.

mod aside;
mod bounded;
mod constant_run_id;
mod ingest;
mod isolate;
mod lanes;
mod spool;
mod spool_faults;
