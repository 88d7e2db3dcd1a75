//! Stored schedules: a memo of the parsed ones, and the zone data with which due times were computed.

pub(crate) mod memo;
pub mod zone_data;
