//! Channels, deliveries, rotations, escalation policies, snoozes and maintenance windows.

pub mod channel;
pub mod delivery;
pub mod policy;
pub mod preview;
pub mod push_key;
pub mod rotation;
pub mod snooze;
pub mod window;
