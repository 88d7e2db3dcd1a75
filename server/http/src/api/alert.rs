//! Channels, deliveries, snoozes and maintenance windows.

pub mod channel;
pub mod delivery;
pub mod snooze;
pub mod window;
