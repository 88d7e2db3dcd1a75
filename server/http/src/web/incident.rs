//! The pages of the causes, and the page behind the link of an alert.

pub mod acknowledge;
pub mod cause;
