//! One fault is one incident.

mod cause;
mod storm;
