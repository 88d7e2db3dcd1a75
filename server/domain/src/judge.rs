//! Up to when silence may be judged, and who is not blamed for reports that Deadbeat may have missed.

pub mod blind_spell;
pub mod hearing;
