//! Pings: signals of a client about a monitor.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::monitor::run::RunDetail;

/// The meaning of a ping.
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

/// The source of a signal.
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

/// The SDK's facts in one event about a Celery run. Empty for ping URLs.
///
/// In JSON, the members of `run` stand beside the others. Spools of earlier releases have the same form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalDetail {
    /// The part that is stored with the run.
    #[serde(flatten)]
    pub run: RunDetail,
    /// Only for an end by expiry. The worker's clock is fast, or the sender's clock is slow, so that a fresh message
    /// may expire at once ([`crate::celery::worker::expiry`]).
    #[serde(default)]
    pub is_early_expiry: bool,
    /// When the run's message was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<DateTime<Utc>>,
    /// The id of the event. An event with a known id changes nothing: the SDK sends an event again if the answer was
    /// lost.
    #[serde(default)]
    pub event: Option<Uuid>,
    /// This attempt has ended, and a retry will follow.
    #[serde(default)]
    pub is_retried: bool,
}

/// One signal for one monitor, as the rules see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its kind.
    pub kind: PingKind,
    /// When the server received the request. A slow database therefore never makes a ping late.
    pub received_at: DateTime<Utc>,
    /// When the signal occurred, by the client's clock, corrected for its skew. Equal to `received_at` for ping URLs.
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
    pub detail: SignalDetail,
    /// The signal comes from a spool. Signals that were received after it may already be known.
    #[serde(skip)]
    pub is_replayed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::run::Outcome;

    /// A detail as the last release wrote it into a spool.
    const SPOOLED: &str = r#"{"task":"t","task_id":null,"worker":"w","retries":2,"error":null,"outcome":"failure","is_early_expiry":true,
        "attempt":"00000000-0000-0000-0000-000000000001","published_at":"2026-01-01T00:00:00Z",
        "event":"00000000-0000-0000-0000-000000000002","is_retried":true,"acks_late":true}"#;

    #[test]
    fn what_a_spool_of_the_last_release_holds_is_read_whole_and_written_as_it_was() {
        let detail: SignalDetail = serde_json::from_str(SPOOLED).unwrap();

        assert_eq!(
            (
                detail.run.worker.as_deref(),
                detail.run.retries,
                detail.run.outcome,
                detail.run.acks_late
            ),
            (Some("w"), 2, Some(Outcome::Failure), true)
        );
        assert_eq!(
            (
                detail.event,
                detail.is_retried,
                detail.is_early_expiry,
                detail.published_at.is_some()
            ),
            (Some(Uuid::from_u128(2)), true, true, true)
        );
        let written = serde_json::to_value(&detail).unwrap();
        assert_eq!(
            written,
            serde_json::from_str::<serde_json::Value>(SPOOLED).unwrap()
        );
    }

    #[test]
    fn a_signal_of_a_ping_url_has_no_detail() {
        let empty = SignalDetail::default();

        let read: SignalDetail = serde_json::from_value(serde_json::to_value(&empty).unwrap()).unwrap();

        assert_eq!(read, empty);
    }
}
