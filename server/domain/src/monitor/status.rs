//! A monitor's status: stored, and shown.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// The stored status. `late` and `running` are computed when shown, because time alone changes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No report yet. It is armed if it has a deadline: its Beat registered it, or a run is open.
    New,
    /// Reports come as expected.
    Up,
    /// A deadline passed, or a failure was reported.
    Down,
    /// The evaluator does not judge it.
    Paused,
}

impl Status {
    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Down => "down",
            Self::Paused => "paused",
        }
    }

    /// Reads [`Status::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::New, Self::Up, Self::Down, Self::Paused]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

/// What pages and the API show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShownStatus {
    /// See [`Status::New`].
    New,
    /// See [`Status::Up`].
    Up,
    /// Past due, but within the grace.
    Late,
    /// See [`Status::Down`].
    Down,
    /// See [`Status::Paused`].
    Paused,
}

impl ShownStatus {
    /// The status to show at `now`.
    #[must_use]
    pub fn at(status: Status, next_due_at: Option<DateTime<Utc>>, armed: bool, now: DateTime<Utc>) -> Self {
        let late = armed && next_due_at.is_some_and(|due| now >= due);
        match status {
            Status::New | Status::Up if late => Self::Late,
            Status::New => Self::New,
            Status::Up => Self::Up,
            Status::Down => Self::Down,
            Status::Paused => Self::Paused,
        }
    }

    /// As written in JSON and on pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Late => "late",
            Self::Down => "down",
            Self::Paused => "paused",
        }
    }

    /// Reads [`ShownStatus::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::New, Self::Up, Self::Late, Self::Down, Self::Paused]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}
