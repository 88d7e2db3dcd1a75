//! Zone data that change.

mod zone_data;
