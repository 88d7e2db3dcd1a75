//! Stories of the services: a real PostgreSQL, a clock that stands still, and no sleeping.

#![allow(
    clippy::unwrap_used,
    reason = "in tests a panic is the report; the lint spares only the test functions themselves"
)]

mod app_name_shared;
mod aside;
mod beat;
mod beat_clock;
mod beat_crash_loop;
mod beat_return;
mod beats_at_once;
mod blind_spell;
mod bounded;
mod broker;
mod cause;
mod confirmation;
mod constant_run_id;
mod delivery;
mod due_hint;
mod host;
mod incarnation;
mod ingest;
mod lanes;
mod listening;
mod migrate;
mod outbox;
mod races;
mod result_backend;
mod retention;
mod schedule_emptied;
mod setup;
mod silence;
mod spool;
mod spool_faults;
mod storm;
mod trace;
mod unreadable;
mod verdict_queues;
mod watchdog;
mod worker;
mod worker_clock;
mod worker_without_sdk;
mod zone_data;
