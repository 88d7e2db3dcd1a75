//! The doors for clients of other products.

mod healthchecks;
mod opsgenie;
mod push;
mod sentry;
