//! Parts that only tests use: a clock that stands still, and real receivers for the messages that Deadbeat sends.
//!
//! Nothing here sleeps: tests move the clock, and wait for events with a limit.

pub mod clock;
pub mod inbox;
pub mod poison;
pub mod receiver;
pub mod wire;

pub use clock::StoppedClock;
pub use inbox::Inbox;
pub use poison::PoisonedClock;
pub use receiver::{Receiver, Reply};
pub use wire::{Fault, Wire};
