//! The parts of Celery applications, and the history of their runs.

pub mod beat;
pub mod broker;
pub mod host;
pub mod queue;
pub mod result_backend;
pub mod trace;
pub mod worker;
