//! What the evaluator asks first, and what it could not judge.

pub mod blind_notice;
pub mod evaluator;
