//! What every answer passes through.

pub mod asker;
pub mod security_headers;
