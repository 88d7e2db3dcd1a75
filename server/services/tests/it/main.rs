//! Tests of the services with a real PostgreSQL and a stopped clock, and without sleeping.

#![allow(
    clippy::unwrap_used,
    reason = "in tests a panic is the report; the lint spares only the test functions themselves"
)]

mod alert;
mod celery;
mod feed;
mod incident;
mod judge;
mod monitor;
mod operation;
mod people;
mod schedule;
mod setup;
