//! The parts of a Celery application that Deadbeat watches, and the rules that find which of them caused a missing run.

pub mod beat;
pub mod blame;
pub mod condition;
pub mod host;
pub mod queue;
pub mod reach;
pub mod result_backend;
pub mod switch;
pub mod trace;
pub mod worker;
