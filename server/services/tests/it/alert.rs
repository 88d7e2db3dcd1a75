//! From the outbox to a person.

mod acknowledging;
mod confirmation;
mod delivery;
mod holding;
mod outbox;
mod secrets;
mod severity;
