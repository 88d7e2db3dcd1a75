//! The age up to which a blind spell counts.

use chrono::TimeDelta;

/// Blind spells that ended longer ago excuse no silence: no grace is this long.
pub(crate) const LONGEST_EXCUSE: TimeDelta = TimeDelta::days(400);
