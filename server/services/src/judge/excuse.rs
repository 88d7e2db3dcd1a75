//! For how long a blind spell counts.

use chrono::TimeDelta;

/// Spells older than any grace excuse nobody any more.
pub(crate) const LONGEST_EXCUSE: TimeDelta = TimeDelta::days(400);
