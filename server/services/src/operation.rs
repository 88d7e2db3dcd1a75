//! Loops that keep Deadbeat itself at work, and what they report.

pub mod duty;
pub(crate) mod lane;
pub mod listening;
pub mod retention;
pub mod selfwatch;
pub mod supervisor;
pub mod watchdog;
