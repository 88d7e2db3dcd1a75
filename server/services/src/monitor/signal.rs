//! Signals on their way to the database: the queue, the group commit, and the spool for outages.

pub mod incoming;
pub mod ingest;
pub mod registry;
pub mod request;
pub mod spool;
pub mod writer;
