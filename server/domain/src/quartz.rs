//! Quartz expressions.
use chrono::{DateTime, Utc};

use crate::expression::{ExpressionError, fault};
use crate::wall::WallTimes;
use crate::zone::Zone;

/// A Quartz expression that has been read and names at least one date that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quartz {
    expression: String,
    times: WallTimes,
}

impl Quartz {
    /// Reads six fields or seven.
    ///
    /// # Errors
    /// Not yet.
    pub fn parse(_expression: &str) -> Result<Self, ExpressionError> {
        Err(fault(1, "quartz is not there yet"))
    }

    /// The expression as written, with single spaces between its fields.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub(crate) fn times(&self) -> &WallTimes {
        &self.times
    }

    /// The next slot strictly after `after`.
    #[must_use]
    pub fn next_after(&self, _after: DateTime<Utc>, _zone: Zone) -> Option<DateTime<Utc>> {
        None
    }
}
