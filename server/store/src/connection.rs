//! Connections to the database: timeouts for every answer, fair turns, and the gate that stays shut until the schema is
//! up to date.

pub mod asker;
pub(crate) mod certificate;
pub mod gate;
pub(crate) mod line;
pub mod turns;
pub(crate) mod wakeup;
