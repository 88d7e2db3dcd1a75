//! `/healthz`, `/readyz` and `/metrics`: for the operator of the server.

pub mod health;
pub mod metrics;
