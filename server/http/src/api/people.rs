//! Projects and API keys.

pub mod api_key;
pub mod project;
