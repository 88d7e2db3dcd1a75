//! Stored schedules: a memo of the parsed ones, and the zone data that the due times were computed with.

pub(crate) mod memo;
pub mod zone_data;
