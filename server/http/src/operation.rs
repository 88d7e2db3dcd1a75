//! `/healthz`, `/readyz` and `/metrics`: for whoever operates the server.

pub mod health;
pub mod metrics;
