//! Beats, workers, queues, brokers and their runs, and the events that the SDK sends.

pub mod beat;
pub mod event;
pub mod trace;
pub mod worker;
