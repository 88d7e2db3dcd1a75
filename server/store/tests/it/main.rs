//! Tests of statements with a real PostgreSQL, and without mocks or sleeping.

#![allow(
    clippy::unwrap_used,
    reason = "in tests a panic is the report; the lint spares only the test functions themselves"
)]

mod batch;
mod catalogue;
mod claims;
mod constraints;
mod feed;
mod migrations;
mod outbox;
mod plans;
mod setup;
mod statements;
mod tables;
mod tenancy;
mod unbegun;
mod upgrade;
