//! Signing in and out, accounts, and forms that only their own page can post.

pub mod account;
pub mod csrf;
pub mod session;
