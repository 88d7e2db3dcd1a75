//! The page behind the link of a confirmation mail.

pub mod confirm;
