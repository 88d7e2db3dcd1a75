//! Why something is wrong, as the codes of the product's table. Messages, pages and the API take their words from here.

use serde::Serialize;

/// A cause. A wrong cause is worse than none: a code is only given where the evidence suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Cause {
    /// A report did not come before its deadline.
    Missed,
    /// A failure was reported.
    Failed,
    /// A run took longer than its longest run.
    Overrun,
    /// Celery Beat stopped ticking.
    BeatDown,
    /// A worker went without a goodbye.
    WorkerLost,
    /// Messages wait in a queue that nobody consumes.
    QueueUnconsumed,
    /// A queue's oldest message waits longer than is allowed.
    QueueSlaBreach,
    /// The broker cannot be reached.
    BrokerDown,
}

impl Cause {
    /// As written in SQL, JSON and pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "MISSED",
            Self::Failed => "FAILED",
            Self::Overrun => "OVERRUN",
            Self::BeatDown => "BEAT_DOWN",
            Self::WorkerLost => "WORKER_LOST",
            Self::QueueUnconsumed => "QUEUE_UNCONSUMED",
            Self::QueueSlaBreach => "QUEUE_SLA_BREACH",
            Self::BrokerDown => "BROKER_DOWN",
        }
    }

    /// Reads [`Cause::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Missed,
            Self::Failed,
            Self::Overrun,
            Self::BeatDown,
            Self::WorkerLost,
            Self::QueueUnconsumed,
            Self::QueueSlaBreach,
            Self::BrokerDown,
        ]
        .into_iter()
        .find(|c| c.as_str() == text)
    }
}
