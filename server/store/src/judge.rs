//! The evaluator's agenda, and the blind spells in which it could not judge.

pub mod blind_notice;
pub mod evaluator;
