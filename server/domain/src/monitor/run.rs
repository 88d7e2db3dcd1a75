//! Runs: pairing starts with ends, several at once, each judged alone.

pub mod orphan;
pub mod pairing;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::RunKey;
use crate::monitor::run::orphan::Orphan;

#[cfg(test)]
mod tests;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Started, not ended.
    Open,
    /// Ended well.
    Success,
    /// Ended badly.
    Fail,
    /// Open past its deadline: judged, and closed by the server. A late end still gives it its duration.
    Overrun,
}

impl RunStatus {
    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Success => "success",
            Self::Fail => "fail",
            Self::Overrun => "overrun",
        }
    }

    /// Reads [`RunStatus::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Success, Self::Fail, Self::Overrun]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

/// How a run ended, in the SDK's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Success,
    /// Its result does not matter.
    Ignored,
    /// By an exception.
    Failure,
    /// By an exception, and it was tried as often as allowed.
    RetriesExhausted,
    /// The task refused the message.
    Rejected,
    /// Its process was told to exit in the middle.
    Aborted,
    /// Somebody revoked it.
    Revoked,
    /// It was not begun in time.
    Expired,
    /// It took longer than the worker allows.
    TimeLimit,
    /// Its process died.
    Lost,
}

impl Outcome {
    /// All.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Ignored,
        Self::Failure,
        Self::RetriesExhausted,
        Self::Rejected,
        Self::Aborted,
        Self::Revoked,
        Self::Expired,
        Self::TimeLimit,
        Self::Lost,
    ];

    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Ignored => "ignored",
            Self::Failure => "failure",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Rejected => "rejected",
            Self::Aborted => "aborted",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::TimeLimit => "time_limit",
            Self::Lost => "lost",
        }
    }

    /// Reads [`Outcome::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }

    /// Whether the work was not done.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::Ignored)
    }
}

/// A message that was begun more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contest {
    /// Begun again while it was open: two run, or what ran it first is dead.
    Again,
    /// The same, and one of the executions has ended well.
    Ended,
    /// Begun again after an execution of it had ended well.
    Repeated,
    /// Two executions have ended well: it is told with this.
    Proved,
    /// It was judged, and told: the end of one of its attempts is no all-clear.
    Told,
}

impl Contest {
    /// As written in SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Ended => "ended",
            Self::Repeated => "repeated",
            Self::Proved => "proved",
            Self::Told => "told",
        }
    }

    /// Reads [`Contest::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Again, Self::Ended, Self::Repeated, Self::Proved, Self::Told]
            .into_iter()
            .find(|contest| contest.as_str() == text)
    }
}

/// What the SDK knows of a Celery run; empty for ping URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// The worker's node name.
    pub worker: Option<String>,
    /// Celery's count of retries; a retry is a stage of the same run, not a failure.
    pub retries: i32,
    /// The exception's class.
    pub error: Option<String>,
    /// How it ended, in the SDK's words.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Of an end by expiry: the clock of the worker is ahead, or that of the sender is behind, so that a fresh message may be too old at once
    /// ([`crate::celery::worker::expiry`]).
    #[serde(default)]
    pub is_early_expiry: bool,
    /// Which execution of its message this is: each start in a process is one.
    #[serde(default)]
    pub attempt: Option<Uuid>,
    /// When its message was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<DateTime<Utc>>,
    /// The event that said so: sent again, it changes nothing.
    #[serde(default)]
    pub event: Option<Uuid>,
    /// This try is over, and another one comes.
    #[serde(default)]
    pub is_retried: bool,
    /// The incarnation of the worker that executes it; None: the SDK does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Uuid>,
    /// Its message is acknowledged when it has ended: the broker delivers it again when its worker dies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub acks_late: bool,
}

/// One run of a monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Our key.
    pub key: RunKey,
    /// The client's run id; there is at most one open run without.
    pub run_id: Option<Uuid>,
    /// How it stands.
    pub status: RunStatus,
    /// None: only its end was heard.
    pub started_at: Option<DateTime<Utc>>,
    /// Set when it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// While open: when it becomes an overrun.
    pub deadline_at: Option<DateTime<Utc>>,
    /// How long it took.
    pub duration: Option<TimeDelta>,
    /// 0–255.
    pub exit_code: Option<u8>,
    /// From the SDK.
    pub detail: RunDetail,
    /// How often its message was begun since its last retry.
    pub attempts: i32,
    /// It was begun more than once, which is to be judged, or was.
    pub contest: Option<Contest>,
    /// The events that it is made of, the newest few.
    pub events: Vec<Uuid>,
    /// While open: its owner seems to have ended, or not to execute it any more.
    pub orphan: Option<Orphan>,
}

impl Run {
    /// Started and not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == RunStatus::Open
    }
}

/// A message was begun a second time: whether the first execution is still alive is asked this much later, when its worker has said again
/// what it runs.
pub const CONTEST_PATIENCE: TimeDelta = TimeDelta::seconds(7);
/// A message whose executions died one after the other, and of which none was begun for so long, is in that loop no more.
pub const LOOP_QUIET: TimeDelta = TimeDelta::seconds(60);
/// Executions of one message, none of which ended: after so many, what runs it dies each time.
pub const LOOP_ATTEMPTS: i32 = 3;
/// A process that was told to go in the middle of a task has said so; what killed it is said by the worker's main process, which looks
/// after its pool every 5 s.
pub const ABORTED_PATIENCE: TimeDelta = TimeDelta::seconds(8);
