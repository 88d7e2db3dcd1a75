//! Extractors: what handlers read from a request. The needed permission is part of an extractor's type.

pub mod api_key;
pub mod client_ip;
pub mod json;
pub mod paging;
pub mod peer;
pub mod sender;
