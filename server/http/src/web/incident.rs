//! The pages of the causes.

pub mod cause;
