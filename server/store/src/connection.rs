//! Connections to the database: limits on every answer, turns, and the gate before the schema is up to date.

pub mod asker;
pub(crate) mod certificate;
pub mod gate;
pub(crate) mod line;
pub mod turns;
pub(crate) mod wakeup;
