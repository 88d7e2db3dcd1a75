//! The doors for clients of other products.

mod opsgenie;
mod push;
mod sentry;
