//! Runs: pairing starts with ends, several at once, each judged alone.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::RunKey;
use crate::limits;
use crate::ping::{PingKind, Signal, Source};

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
}

impl Run {
    /// Started and not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == RunStatus::Open
    }
}

/// Starts a run, or starts it again. Returns the run that changed.
///
/// The same run id (none counts as one id) means the same run: a repeated start moves its beginning, as Healthchecks has it, but a
/// Celery retry goes on from its first start, because the run is as long as its tries together.
pub fn start<'a>(runs: &'a mut Vec<Run>, signal: &Signal, longest: TimeDelta) -> Option<&'a Run> {
    if let Some(ended) = ended_before_its_start(runs, signal) {
        let run = &mut runs[ended];
        run.started_at = Some(
            run.started_at
                .map_or(signal.occurred_at, |start| start.min(signal.occurred_at)),
        );
        run.duration = run
            .duration
            .or(run.finished_at.map(|end| end - signal.occurred_at));
        return runs.get(ended);
    }
    let found = runs
        .iter()
        .position(|run| run.is_open() && run.run_id == signal.run_id);
    let index = match found {
        Some(index) => {
            if signal.detail.retries == 0 {
                runs[index].started_at = Some(signal.occurred_at);
                runs[index].deadline_at = Some(signal.occurred_at + longest);
            }
            runs[index].detail = signal.detail.clone();
            index
        }
        None if runs.iter().filter(|run| run.is_open()).count() >= limits::OPEN_RUNS => return None,
        None => {
            runs.push(Run {
                key: RunKey::generate(),
                run_id: signal.run_id,
                status: RunStatus::Open,
                started_at: Some(signal.occurred_at),
                finished_at: None,
                deadline_at: Some(signal.occurred_at + longest),
                duration: None,
                exit_code: None,
                detail: signal.detail.clone(),
            });
            runs.len() - 1
        }
    };
    runs.get(index)
}

/// Events of several processes come in no order: a start that happened before an end that we know of belongs to that ended run.
fn ended_before_its_start(runs: &[Run], signal: &Signal) -> Option<usize> {
    runs.iter().position(|run| {
        signal.source == Source::Event
            && signal.run_id.is_some()
            && run.run_id == signal.run_id
            && run.finished_at.is_some_and(|end| end >= signal.occurred_at)
    })
}

/// Ends the run that a success or a failure belongs to. Returns the run that changed, if the end belongs to one.
///
/// An end belongs to the open run of the same run id; else to the overrun of that id, which gets its true length; else, when it
/// names no run and exactly one is open, to that one (its client forgot the id: no duration is claimed). A second end of one run from
/// the SDK (a child aborted, then the worker says why) has the last word. An end with an unknown id is a run of which only the end was
/// heard. A plain end with nothing open is just a ping.
pub fn finish<'a>(runs: &'a mut Vec<Run>, signal: &Signal) -> Option<&'a Run> {
    let status = if signal.kind == PingKind::Success {
        RunStatus::Success
    } else {
        RunStatus::Fail
    };
    let same_id = |run: &Run| run.run_id == signal.run_id;
    let open: Vec<usize> = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| run.is_open())
        .map(|(index, _)| index)
        .collect();
    let paired = open.iter().copied().find(|&index| same_id(&runs[index]));
    let late = || {
        runs.iter().position(|run| {
            run.status == RunStatus::Overrun
                && signal.run_id.is_some()
                && same_id(run)
                && run.finished_at.is_none()
        })
    };
    let again = || {
        runs.iter().rposition(|run| {
            signal.source == Source::Event
                && signal.run_id.is_some()
                && same_id(run)
                && matches!(run.status, RunStatus::Success | RunStatus::Fail)
        })
    };
    let only = if signal.run_id.is_none() && open.len() == 1 {
        Some(open[0])
    } else {
        None
    };

    let (index, claims_duration) = match (paired.or_else(late).or_else(again), only) {
        (Some(index), _) => (index, true),
        (None, Some(index)) => (index, false),
        (None, None) if signal.run_id.is_some() => {
            runs.push(Run {
                key: RunKey::generate(),
                run_id: signal.run_id,
                status,
                started_at: signal.duration.map(|length| signal.occurred_at - length),
                finished_at: Some(signal.occurred_at),
                deadline_at: None,
                duration: signal.duration,
                exit_code: signal.exit_code,
                detail: signal.detail.clone(),
            });
            return runs.last();
        }
        (None, None) => return None,
    };

    let run = &mut runs[index];
    if run.status != RunStatus::Overrun {
        run.status = status;
    }
    let finished_at = run
        .started_at
        .map_or(signal.occurred_at, |start| signal.occurred_at.max(start));
    run.finished_at = Some(finished_at);
    run.deadline_at = None;
    run.exit_code = signal.exit_code;
    if claims_duration {
        run.duration = signal
            .duration
            .or_else(|| run.started_at.map(|start| finished_at - start));
    }
    if signal.detail != RunDetail::default() {
        run.detail = signal.detail.clone();
    }
    Some(run)
}

/// Closes the open runs that are past their deadline as overruns, and returns them.
pub fn close_overdue(runs: &mut [Run], now: DateTime<Utc>) -> Vec<RunKey> {
    let is_overdue = |run: &Run| run.is_open() && run.deadline_at.is_some_and(|deadline| deadline <= now);
    let close = |run: &mut Run| {
        run.status = RunStatus::Overrun;
        run.deadline_at = None;
        run.key
    };
    runs.iter_mut().filter(|run| is_overdue(run)).map(close).collect()
}
