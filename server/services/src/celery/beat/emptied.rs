//! A Beat's list that vanished, as an incident shows it.

use chrono::{DateTime, Utc};

/// What was listed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// When the list came that had none.
    pub at: DateTime<Utc>,
    /// Monitors that it retired, the first few by name.
    pub names: Vec<String>,
    /// All of them.
    pub count: i64,
}
