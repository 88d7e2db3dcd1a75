//! The dashboard.

pub mod dashboard;
pub mod worst_first;
