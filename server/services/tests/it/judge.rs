//! Silence, and when it may be judged.

mod blind_spell;
mod races;
mod silence;
mod unreadable;
