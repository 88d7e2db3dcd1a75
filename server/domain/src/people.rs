//! Members, API keys, and limits on what each may do.

pub mod guessing;
pub mod key;
pub mod project;
pub mod rate;
