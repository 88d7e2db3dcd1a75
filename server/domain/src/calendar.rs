//! systemd's calendar expressions.
use chrono::{DateTime, Utc};

use crate::expression::{ExpressionError, fault};
use crate::zone::Zone;

/// One or more calendar expressions, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    expression: String,
    zone: Zone,
}

impl Calendar {
    /// Reads the lines; `zone` is for those that name none.
    ///
    /// # Errors
    /// Not yet.
    pub fn parse(_expression: &str, _zone: Zone) -> Result<Self, ExpressionError> {
        Err(fault(1, "oncalendar is not there yet"))
    }

    /// The lines as written, without blanks around them and without empty ones.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone of the lines that name none.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The next slot of any line strictly after `after`.
    #[must_use]
    pub fn next_after(&self, _after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        None
    }
}
