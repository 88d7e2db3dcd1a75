//! Signing in and out, accounts, invitations, new projects, and forms that only their own page can post.

pub mod account;
pub mod csrf;
pub mod invitation;
pub mod member;
pub mod project;
pub mod session;
