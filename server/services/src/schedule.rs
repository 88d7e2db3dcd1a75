//! What happens when the time zone data change.

pub mod zone_data;
