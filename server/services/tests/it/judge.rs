//! Silence of monitors, and when the evaluator may judge it.

mod blind_spell;
mod races;
mod silence;
mod unreadable;
