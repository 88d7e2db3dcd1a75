//! Middleware for every answer.

pub mod asker;
pub mod security_headers;
