//! Retention, the processes that receive signals, and statistics of the whole deployment.

pub mod listener;
pub mod retention;
pub mod stats;
pub mod writer;
