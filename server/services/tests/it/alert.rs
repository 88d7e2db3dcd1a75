//! Alerts on their way from the outbox to a person.

mod acknowledging;
mod callbacks;
mod confirmation;
mod delivery;
mod escalation;
mod holding;
mod outbox;
pub mod rotation;
mod secrets;
mod severity;
mod unsubscribing;
