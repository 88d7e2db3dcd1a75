//! Signing in and out, and forms that only their own page may post.

pub mod csrf;
pub mod session;
