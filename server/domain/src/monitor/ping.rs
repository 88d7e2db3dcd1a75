//! Pings: signals of a client about a monitor.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::monitor::run::RunDetail;

/// What a ping means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PingKind {
    /// A run began.
    Start,
    /// A run succeeded.
    Success,
    /// A run failed.
    Fail,
    /// Recorded; changes nothing.
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

    /// The meaning of an exit code in a ping URL: 0 is success, anything else a failure.
    #[must_use]
    pub fn from_exit_code(code: u8) -> Self {
        if code == 0 { Self::Success } else { Self::Fail }
    }
}

/// Where a signal comes from.
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
    /// Its kind.
    pub kind: PingKind,
    /// When the request entered the server. A slow database therefore never makes a ping late.
    pub received_at: DateTime<Utc>,
    /// When it happened, by the client's clock, corrected for that clock's skew. Equal to `received_at` for ping URLs.
    pub occurred_at: DateTime<Utc>,
    /// The client's run id.
    pub run_id: Option<Uuid>,
    /// The exit code of the client's command: 0 to 255.
    pub exit_code: Option<u8>,
    /// The run's length by the client's own clock. None: the client did not measure it.
    pub duration: Option<TimeDelta>,
    /// Where it came from.
    pub source: Source,
    /// The SDK's facts about the run.
    pub detail: RunDetail,
    /// It comes from a spool, so signals that were received after it may be known already.
    #[serde(skip)]
    pub is_replayed: bool,
}
