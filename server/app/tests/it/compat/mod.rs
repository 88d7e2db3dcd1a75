//! The doors for clients of other products.

mod push;
mod sentry;
