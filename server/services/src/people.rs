//! Accounts, projects, API keys, and what each may use up.

pub mod account;
pub mod api_key;
pub mod audit;
pub mod chosen;
pub(crate) mod guessing;
pub mod invitation;
pub mod member;
pub(crate) mod pace;
pub mod project;
pub mod quota;
pub mod security_log;
pub mod setup;
pub(crate) mod share;
pub(crate) mod strangers;
