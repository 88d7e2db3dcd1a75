//! What is done when time zone data change.

pub mod zone_data;
