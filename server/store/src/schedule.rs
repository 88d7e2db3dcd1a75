//! Stored schedules: those that were read lately, and the zone data that due times were computed with.

pub(crate) mod memo;
pub mod zone_data;
