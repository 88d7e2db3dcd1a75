//! Pages that a link of a message opens.

mod acknowledge;
mod confirm;
mod unsubscribe;
