//! What every answer passes through.

pub mod security_headers;
