//! Connections to the database: limits on every answer, fair turns, and the gate that is shut until the schema is up to
//! date.

pub mod asker;
pub(crate) mod certificate;
pub mod gate;
pub(crate) mod line;
pub mod turns;
pub(crate) mod wakeup;
