//! Pages that the link in a message opens.

mod acknowledge;
mod confirm;
mod unsubscribe;
