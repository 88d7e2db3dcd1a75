//! Alerts on their way from the outbox to a person.

mod acknowledging;
mod callbacks;
mod confirmation;
mod delivery;
mod escalation;
pub mod holding;
mod long_down;
mod noise;
mod outbox;
pub mod rotation;
mod secrets;
mod severity;
mod unsubscribing;
mod web_push;
