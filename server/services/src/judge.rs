//! The evaluator: it opens an incident when an expected report does not come.

pub(crate) mod blind_notice;
pub mod evaluator;
pub(crate) mod excuse;
