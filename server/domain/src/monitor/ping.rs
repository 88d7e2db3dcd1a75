//! Pings: what a client says about a monitor.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::monitor::run::RunDetail;

/// What a ping means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PingKind {
    /// A run has begun.
    Start,
    /// A run ended well.
    Success,
    /// A run ended badly.
    Fail,
    /// Kept, and changes nothing.
    Log,
}

impl PingKind {
    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Success => "success",
            Self::Fail => "fail",
            Self::Log => "log",
        }
    }

    /// Reads [`PingKind::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Start, Self::Success, Self::Fail, Self::Log]
            .into_iter()
            .find(|k| k.as_str() == text)
    }

    /// What an exit code in a ping URL means: 0 is success, anything else a failure.
    #[must_use]
    pub fn from_exit_code(code: u8) -> Self {
        if code == 0 { Self::Success } else { Self::Fail }
    }
}

/// Where a signal came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A ping URL.
    Http,
    /// The SDK's event batch.
    Event,
}

impl Source {
    /// As written in SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Event => "event",
        }
    }
}

/// One signal for one monitor, as the rules see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What it says.
    pub kind: PingKind,
    /// Stamped when the request entered the server: a slow database never makes a ping late.
    pub received_at: DateTime<Utc>,
    /// When it happened by the client's clock, corrected for that clock's error; equal to `received_at` for ping URLs.
    pub occurred_at: DateTime<Utc>,
    /// The client's run id.
    pub run_id: Option<Uuid>,
    /// 0–255.
    pub exit_code: Option<u8>,
    /// The run's length by the client's own clock, where it measured one.
    pub duration: Option<TimeDelta>,
    /// Where it came from.
    pub source: Source,
    /// What the SDK knows of the run.
    pub detail: RunDetail,
    /// It lay in a spool: signals that were received after it may be known already.
    #[serde(skip)]
    pub is_replayed: bool,
}
