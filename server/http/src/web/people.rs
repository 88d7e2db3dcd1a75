//! Signing in and out, and forms that only their own page can post.

pub mod csrf;
pub mod session;
