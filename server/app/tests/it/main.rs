//! Tests of what a caller sees over a port, and of faults.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps nothing fails, as it should"
)]

mod access_log;
mod api_channel;
mod api_event;
mod api_incident;
mod api_key;
mod api_monitor;
mod api_schedule;
mod compat;
mod contract;
mod embedded_postgres;
mod harness;
mod hostile;
mod lanes;
mod permissions;
mod ping_urls;
mod silence;
mod web_account;
mod web_alert;
mod web_cause;
mod web_celery;
mod web_dashboard;
mod web_history;
