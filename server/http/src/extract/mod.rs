//! Extractors: the parts of a request that handlers read. The type of an extractor contains the needed permission.

pub mod api_key;
pub mod client_ip;
pub mod json;
pub mod paging;
pub mod peer;
pub mod sender;
