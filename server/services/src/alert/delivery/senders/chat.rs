//! Chat services: an alert is a message in a room.

pub mod slack;
