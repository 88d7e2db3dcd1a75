//! Stretches of time that the evaluator could not judge.

pub mod blind_spell;
