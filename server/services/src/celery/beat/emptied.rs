//! A Beat's schedule that vanished, as an incident shows it.

use chrono::{DateTime, Utc};

/// The entries that were listed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// When the empty list came.
    pub at: DateTime<Utc>,
    /// The names of the first few monitors that it retired.
    pub names: Vec<String>,
    /// How many monitors it retired in all.
    pub count: i64,
}
