//! Accounts, projects, API keys, and what each has used of its limits.

pub mod account;
pub mod api_key;
pub mod project;
pub mod quota;
