//! Runs: starts paired with ends. Several runs of a monitor may be open at once, and each is judged separately.

pub mod orphan;
pub mod pairing;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::RunKey;
use crate::monitor::run::orphan::Orphan;

#[cfg(test)]
mod tests;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Started and not ended.
    Open,
    /// It succeeded.
    Success,
    /// It failed.
    Fail,
    /// It was open past its deadline, and the server closed it. A late end still sets its duration.
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

/// How a run ended, with the names of the SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// The task raised `Ignore`: its result does not matter.
    Ignored,
    /// It raised an exception.
    Failure,
    /// It raised an exception, and its retries are used up.
    RetriesExhausted,
    /// The task rejected the message.
    Rejected,
    /// Its process was ordered to exit while it ran.
    Aborted,
    /// A person or a program revoked it.
    Revoked,
    /// Its message expired before a worker began it.
    Expired,
    /// It exceeded a time limit.
    TimeLimit,
    /// Its process died.
    Lost,
}

impl Outcome {
    /// Every outcome.
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

    /// True if the task did not do its work.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::Ignored)
    }
}

/// The doubt about a run whose message began more than once without a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contest {
    /// The message began again while its run was open. Either two executions run at the same time, or the process of
    /// the first execution is dead.
    Again,
    /// Like [`Contest::Again`], and one of the executions has succeeded.
    Ended,
    /// The message began again after an execution of it had succeeded.
    Repeated,
    /// Two executions have succeeded. This proves a duplicate run, which is reported next.
    Proved,
    /// The doubt was judged and reported. The end of one attempt does not bring the monitor up.
    Alerted,
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
            Self::Alerted => "told",
        }
    }

    /// Reads [`Contest::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Again,
            Self::Ended,
            Self::Repeated,
            Self::Proved,
            Self::Alerted,
        ]
        .into_iter()
        .find(|contest| contest.as_str() == text)
    }
}

/// The SDK's facts about a Celery run. Empty for ping URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// The worker's node name.
    pub worker: Option<String>,
    /// Celery's count of retries. A retry is a stage of the same run, not a failure.
    pub retries: i32,
    /// The exception's class.
    pub error: Option<String>,
    /// How it ended, with the names of the SDK.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// The attempt: one execution of the message. Each start in a process is a new attempt.
    #[serde(default)]
    pub attempt: Option<Uuid>,
    /// The incarnation of the worker that executes the run. None: the SDK does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Uuid>,
    /// The worker acknowledges the message only at the run's end, so the broker delivers it again if the worker dies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub acks_late: bool,
}

/// One run of a monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The server's key of the run.
    pub key: RunKey,
    /// The client's run id. At most one open run has none.
    pub run_id: Option<Uuid>,
    /// Its state.
    pub status: RunStatus,
    /// When it started. None: only its end was reported.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// While the run is open: when the evaluator judges it.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When the server received the end of one of several executions of its message. The run stays open
    /// ([`Contest::Ended`]) until the others are judged.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it took.
    pub duration: Option<TimeDelta>,
    /// The exit code of the client's command: 0 to 255.
    pub exit_code: Option<u8>,
    /// The SDK's facts.
    pub detail: RunDetail,
    /// How often its message began since its last retry.
    pub attempts: i32,
    /// The doubt about a run whose message began more than once. None: it began once.
    pub contest: Option<Contest>,
    /// The ids of its newest events.
    pub events: Vec<Uuid>,
    /// While the run is open: its owner seems to have ended, or no longer lists it.
    pub orphan: Option<Orphan>,
}

impl Run {
    /// Started and not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == RunStatus::Open
    }
}

/// How long to wait after a message began a second time, before the evaluator checks whether the first execution is
/// alive. By then, its worker has sent another snapshot with the runs that it executes.
pub const CONTEST_PATIENCE: TimeDelta = TimeDelta::seconds(7);
/// A message whose executions die one after the other has left that loop if no execution began for this long.
pub const LOOP_QUIET: TimeDelta = TimeDelta::seconds(60);
/// This many executions of one message without an end are a redelivery loop: each process that runs it dies.
pub const LOOP_ATTEMPTS: i32 = 3;
/// How long to wait for the reason after `aborted`. A process that is ordered to exit during a task reports `aborted`.
/// The worker's main process reports the signal that killed it, and checks its pool every 5 s.
pub const ABORTED_PATIENCE: TimeDelta = TimeDelta::seconds(8);
