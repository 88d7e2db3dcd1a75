//! Channels and deliveries.

pub mod channel;
pub mod delivery;
