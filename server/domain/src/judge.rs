//! The rules that decide up to when silence may be judged, and which missing reports Deadbeat may itself have missed.

pub mod blind_spell;
pub mod reception;
