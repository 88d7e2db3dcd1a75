//! The SDK's reports of Beat, workers, brokers and runs, and what follows from them.

pub mod beat;
pub mod broker;
pub mod event;
pub(crate) mod gather;
pub mod host;
pub mod result_backend;
pub mod trace;
pub mod worker;
