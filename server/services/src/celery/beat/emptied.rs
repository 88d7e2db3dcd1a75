//! A Beat's schedule that vanished, for an incident.

use chrono::{DateTime, Utc};

/// The entries of the schedule before it vanished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// When the empty schedule arrived.
    pub at: DateTime<Utc>,
    /// The names of the first few monitors that the empty schedule retired.
    pub names: Vec<String>,
    /// The number of all monitors that it retired.
    pub count: i64,
}
