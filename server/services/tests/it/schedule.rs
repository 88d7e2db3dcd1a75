//! Changes of time zone data.

mod zone_data;
