//! The evaluator: silence becomes an incident.

pub(crate) mod blind_notice;
pub mod evaluator;
pub(crate) mod excuse;
