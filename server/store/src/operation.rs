//! Retention, processes that take signals in, and figures about the whole deployment.

pub mod listener;
pub mod retention;
pub mod stats;
pub mod writer;
