//! From the outbox to a person.

mod confirmation;
mod delivery;
mod outbox;
mod secrets;
mod severity;
