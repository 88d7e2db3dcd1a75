//! Beats, workers, brokers and runs, as the SDK reports them.

mod beat;
mod broker;
mod flood;
mod host;
mod result_backend;
mod trace;
mod verdict_queues;
mod worker;
