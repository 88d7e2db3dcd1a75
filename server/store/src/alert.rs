//! Channels, the outbox with its claims, and every attempt to send.

pub mod attempt;
pub mod channel;
pub mod claim;
pub mod delivery;
pub mod escalation;
pub mod handle;
pub mod policy;
pub mod push_key;
pub mod rotation;
pub mod sealed;
pub mod snooze;
pub mod usage;
pub mod waiting;
pub mod window;
