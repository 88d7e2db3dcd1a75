//! Alerts: how an incident reaches people, by the outbox, channels and delivery.

pub mod channel;
pub mod confirmation;
pub mod delivery;
pub mod escalation;
pub mod example;
pub mod hold;
pub mod outbox;
pub mod policy;
pub mod push_key;
pub mod resend;
pub mod rotation;
pub mod sealing;
pub(crate) mod switched_off;
pub mod unsubscribe;
pub(crate) mod usage;
pub(crate) mod waiting;
