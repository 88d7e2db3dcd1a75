//! The parts of a Celery application that Deadbeat watches, and which of them is to blame when a run does not come.

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
