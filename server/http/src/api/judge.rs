//! Stretches of time that could not be judged.

pub mod blind_spell;
