//! One fault opens one incident.

mod cause;
mod storm;
