//! Up to when silence may be judged, and who is not blamed for what Deadbeat may have missed.

pub mod blind_spell;
pub mod hearing;
