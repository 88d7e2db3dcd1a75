//! The trace of a run: all its reported stages, from several processes and in any order.
//!
//! The publisher, the worker's main process and its child each report what they observe. Each process sends a report
//! again if it is not sure that the report arrived. So a trace is a set of stages: [`fold`] adds each stage once, and
//! everything else is computed from the set. Any order and any repetition of the same stages yields the same trace
//! (proved in `tests.rs`).
//!
//! Stages are sorted by attempt first, and by time second. Clock skew between machines may be longer than a short task,
//! but Celery's count of retries is never wrong.

use std::cmp::Reverse;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::monitor::run::Outcome;

use crate::limits::TRACE_STAGES;

/// The kind of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// The publisher gave the message to the broker.
    Published,
    /// A worker received the message from its queue.
    Received,
    /// An attempt began.
    Started,
    /// No end was reported, and none will be: its worker is gone, or it began too long ago. Deadbeat adds this stage. A
    /// report of any process overrides it.
    GivenUp,
    /// An attempt ended, and a retry will follow.
    Retried,
    /// The run ended.
    Finished,
}

/// One reported stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The event's id. A stage that is reported twice counts once.
    pub id: Uuid,
    /// Its kind.
    pub kind: StageKind,
    /// When it occurred, by the server's clock.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub at: DateTime<Utc>,
    /// How often the run had been retried before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i32,
    /// The attempt. None: the reporting process does not execute the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Uuid>,
    /// The worker's node name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The broker had delivered the message before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redelivered: bool,
    /// The process that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// For an end: the outcome. Never None there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// For an end by a time limit: it was the soft limit.
    #[serde(default, skip_serializing_if = "is_false")]
    pub soft: bool,
    /// For an end: how long the attempt took, in seconds, by the worker's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// The exception's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A reported stage, with the facts about the whole run that its event carried.
#[derive(Debug, Clone, PartialEq)]
pub struct StageReport {
    /// The stage.
    pub stage: Stage,
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// The slot for which Beat sent the run.
    pub slot: Option<DateTime<Utc>>,
    /// The earliest time at which the run may begin. The ETA of a retry does not count.
    pub eta: Option<DateTime<Utc>>,
    /// When its message was published.
    pub published_at: Option<DateTime<Utc>>,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceState {
    /// In its queue, as far as is known.
    Published,
    /// With a worker, which waits for the run's ETA or for a free process.
    Received,
    /// Running.
    Started,
    /// Waiting for the retry.
    Retried,
    /// Ended with this outcome.
    Ended(Outcome),
}

/// The reported stages of one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// The slot for which Beat sent the run.
    pub slot: Option<DateTime<Utc>>,
    /// The earliest time at which the run may begin.
    pub eta: Option<DateTime<Utc>>,
    /// When it was first published: by its publisher's report, or else by its message.
    pub published_at: Option<DateTime<Utc>>,
    /// Sorted. Of more than [`TRACE_STAGES`], the first half and the last half of that number are kept.
    pub stages: Vec<Stage>,
    /// Number of dropped stages. If a dropped stage is reported again, it counts again, because its id is forgotten.
    pub more_stages: i32,
    /// Number of starts among the dropped stages.
    pub more_starts: i32,
}

/// Adds a reported stage. Returns false if the stage is already known.
pub fn fold(trace: &mut Trace, report: &StageReport) -> bool {
    // Of two different values, keep the greater one, so that the order of arrival does not matter.
    join(&mut trace.task, &report.task, |kept, new| new > kept);
    join(&mut trace.task_id, &report.task_id, |kept, new| new > kept);
    join(&mut trace.slot, &report.slot, |kept, new| new < kept);
    if sent_at(trace).is_none() {
        join(&mut trace.published_at, &report.published_at, |kept, new| {
            new < kept
        });
    }
    if report.stage.retries == 0 {
        join(&mut trace.eta, &report.eta, |kept, new| new > kept);
    }
    let stage = &report.stage;
    if trace.stages.iter().any(|known| known.id == stage.id) {
        return false;
    }
    let place = trace.stages.partition_point(|known| order(known) < order(stage));
    trace.stages.insert(place, stage.clone());
    trace.published_at = sent_at(trace).or(trace.published_at);
    if trace.stages.len() > TRACE_STAGES {
        let gone = trace.stages.remove(TRACE_STAGES / 2);
        trace.more_stages = trace.more_stages.saturating_add(1);
        trace.more_starts = trace
            .more_starts
            .saturating_add(i32::from(gone.kind == StageKind::Started));
    }
    true
}

/// When the first publisher reports that it sent the run. All other processes read this time from the message, where
/// the sender's clock wrote it.
fn sent_at(trace: &Trace) -> Option<DateTime<Utc>> {
    let is_senders = |stage: &&Stage| stage.kind == StageKind::Published && stage.retries == 0;
    trace.stages.iter().filter(is_senders).map(|stage| stage.at).min()
}

fn join<T: Clone>(kept: &mut Option<T>, new: &Option<T>, is_better: impl Fn(&T, &T) -> bool) {
    if let Some(new) = new
        && kept.as_ref().is_none_or(|kept| is_better(kept, new))
    {
        *kept = Some(new.clone());
    }
}

/// Returns the run id that the SDK derives from a task id: the task id itself, or a UUID made from it if the
/// application chose another form.
#[must_use]
pub fn run_id_of(task_id: &str) -> Uuid {
    Uuid::try_parse(task_id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, task_id.as_bytes()))
}

/// The sort key of stages: by attempt, with the sending first, then by time. Stages at the same time follow the course
/// of a run. So the first sending is never among the dropped stages.
fn order(stage: &Stage) -> (i32, bool, DateTime<Utc>, StageKind, Uuid) {
    let is_later = stage.kind != StageKind::Published;
    (stage.retries, is_later, stage.at, stage.kind, stage.id)
}

impl Trace {
    /// Returns the state of the run: the state of its newest stage.
    ///
    /// That is the last start or end of the last attempt. If the main process reports an end (`time_limit`, `lost`,
    /// `revoked`), that overrides the `aborted` of the child that it ended. A message that is redelivered later, and
    /// has not begun yet, opens the run again.
    #[must_use]
    pub fn state(&self) -> TraceState {
        let Some((report, at)) = self.last_report() else {
            return if self.of_level().any(|stage| stage.kind == StageKind::Received) {
                TraceState::Received
            } else if self.level() > 0 {
                TraceState::Retried
            } else {
                TraceState::Published
            };
        };
        if report.kind != StageKind::Retried && self.waits_again(at) {
            return TraceState::Received;
        }
        match report.kind {
            StageKind::Retried => TraceState::Retried,
            StageKind::Finished => TraceState::Ended(report.outcome.unwrap_or(Outcome::Lost)),
            StageKind::GivenUp => TraceState::Ended(Outcome::Lost),
            StageKind::Published | StageKind::Received | StageKind::Started => TraceState::Started,
        }
    }

    /// The last attempt's number.
    fn level(&self) -> i32 {
        self.stages.last().map_or(0, |stage| stage.retries)
    }

    fn of_level(&self) -> impl DoubleEndedIterator<Item = &Stage> {
        let level = self.level();
        self.stages.iter().filter(move |stage| stage.retries == level)
    }

    /// The stage of the last attempt that decides the state, and its time. None: the attempt has not begun.
    fn last_report(&self) -> Option<(&Stage, DateTime<Utc>)> {
        let start_of = |attempt: Option<Uuid>| {
            let same = |stage: &&Stage| stage.kind == StageKind::Started && stage.attempt == attempt;
            attempt.and_then(|_| self.of_level().find(same))
        };
        let is_ended = |start: &Stage| {
            let ends = |stage: &Stage| {
                matches!(stage.kind, StageKind::Retried | StageKind::Finished)
                    && stage.attempt == start.attempt
            };
            start.attempt.is_some() && self.of_level().any(ends)
        };
        let (report, at) = self
            .of_level()
            .filter(|stage| stage.kind >= StageKind::Started)
            .filter(|stage| stage.kind != StageKind::Started || !is_ended(stage))
            // An end is never before its start, even if two readings of a clock say so.
            .map(|stage| {
                let start = start_of(stage.attempt).map_or(stage.at, |start| start.at);
                (stage, stage.at.max(start))
            })
            .max_by_key(|(stage, at)| (*at, stage.kind, stage.id))?;
        if report.outcome != Some(Outcome::Aborted) {
            return Some((report, at));
        }
        let began = start_of(report.attempt).map(|start| start.at);
        let from_outside = self.of_level().rev().find(|stage| {
            matches!(
                stage.outcome,
                Some(Outcome::TimeLimit | Outcome::Lost | Outcome::Revoked)
            ) && stage.attempt.is_none()
                && began.is_none_or(|began| stage.at >= began)
        });
        Some((from_outside.unwrap_or(report), at))
    }

    /// True if a message was redelivered after `at` and has not begun. Compares counts as well as times, because the
    /// main process and its child read the clock at different moments.
    fn waits_again(&self, at: DateTime<Utc>) -> bool {
        let count = |kind| self.of_level().filter(|stage| stage.kind == kind).count();
        self.of_level()
            .any(|stage| stage.kind == StageKind::Received && stage.redelivered && stage.at > at)
            && count(StageKind::Received) > count(StageKind::Started)
    }

    fn first(&self, kind: StageKind) -> Option<DateTime<Utc>> {
        let of_kind = self.stages.iter().filter(|stage| stage.kind == kind);
        of_kind.map(|stage| stage.at).min()
    }

    /// The newest known value, in the order of the stages.
    fn last<'a, T>(&'a self, what: impl Fn(&'a Stage) -> Option<T>) -> Option<T> {
        self.stages.iter().rev().find_map(what)
    }

    /// When a worker first received it.
    #[must_use]
    pub fn received_at(&self) -> Option<DateTime<Utc>> {
        self.first(StageKind::Received)
    }

    /// When its first attempt began.
    #[must_use]
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        self.first(StageKind::Started)
    }

    /// When it ended. None: it has not ended, or the time of its end is not known.
    #[must_use]
    pub fn finished_at(&self) -> Option<DateTime<Utc>> {
        let (report, at) = self.last_report()?;
        let has_ended = matches!(self.state(), TraceState::Ended(_)) && report.kind == StageKind::Finished;
        has_ended.then_some(at)
    }

    /// The wait from its publishing, or from its ETA if that is later, until its first start.
    #[must_use]
    pub fn wait(&self) -> Option<TimeDelta> {
        let wanted = self.published_at.max(self.eta)?;
        let wait = self.started_at()? - wanted;
        Some(wait.max(TimeDelta::zero()))
    }

    /// How long the last attempt of an ended run took, in seconds: by the worker's own clock, or from start to end.
    #[must_use]
    pub fn run_seconds(&self) -> Option<f64> {
        let end = self.finished_at()?;
        let (report, _) = self.last_report()?;
        let measured = report.duration_seconds;
        measured.or_else(|| {
            let start = self
                .of_level()
                .rev()
                .find(|stage| stage.kind == StageKind::Started)?;
            Some(((end - start.at).num_microseconds()? as f64 / 1e6).max(0.0))
        })
    }

    /// Number of attempts that began. A message that is delivered twice causes two.
    #[must_use]
    pub fn attempts(&self) -> i32 {
        let starts = self
            .stages
            .iter()
            .filter(|stage| stage.kind == StageKind::Started);
        self.more_starts
            .saturating_add(i32::try_from(starts.count()).unwrap_or(i32::MAX))
    }

    /// Celery's count of retries.
    #[must_use]
    pub fn retries(&self) -> i32 {
        self.level()
    }

    /// True if the broker delivered it more than once.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.stages.iter().any(|stage| stage.redelivered)
    }

    /// The last worker that reported on it.
    #[must_use]
    pub fn worker(&self) -> Option<&str> {
        self.last(|stage| stage.worker.as_deref())
    }

    /// Its queue.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        self.last(|stage| stage.queue.as_deref())
    }

    /// The class of the last exception. None if the run succeeded.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self.state() {
            TraceState::Ended(Outcome::Success | Outcome::Ignored) => None,
            _ => self.last(|stage| stage.error.as_deref()),
        }
    }

    /// The time of its last stage.
    #[must_use]
    pub fn heard_at(&self) -> Option<DateTime<Utc>> {
        self.stages.iter().map(|stage| stage.at).max()
    }

    /// Returns the stage that gives up a run whose end no process reports. It has the time of the run's last stage, so
    /// that any real later stage overrides it, even one that is reported late.
    #[must_use]
    pub fn given_up(&self, id: Uuid, why: &str) -> StageReport {
        let stage = Stage {
            id,
            kind: StageKind::GivenUp,
            at: self.heard_at().unwrap_or_default(),
            retries: self.level(),
            attempt: None,
            worker: None,
            queue: None,
            redelivered: false,
            pid: None,
            outcome: None,
            soft: false,
            duration_seconds: None,
            error: Some(why.to_owned()),
        };
        StageReport {
            stage,
            task: None,
            task_id: None,
            slot: None,
            eta: None,
            published_at: None,
        }
    }

    /// The stages by time, for people.
    #[must_use]
    pub fn timeline(&self) -> Vec<&Stage> {
        let mut stages: Vec<&Stage> = self.stages.iter().collect();
        stages.sort_by_key(|stage| (stage.at, stage.retries, stage.kind, Reverse(stage.id)));
        stages
    }
}

impl StageKind {
    /// As written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Received => "received",
            Self::Started => "started",
            Self::GivenUp => "given_up",
            Self::Retried => "retried",
            Self::Finished => "finished",
        }
    }
}

impl TraceState {
    /// The states of runs that have not ended.
    pub const OPEN: [Self; 4] = [Self::Published, Self::Received, Self::Started, Self::Retried];

    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Received => "received",
            Self::Started => "started",
            Self::Retried => "retried",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// Reads [`TraceState::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let open = Self::OPEN.into_iter().find(|state| state.as_str() == text);
        open.or_else(|| Outcome::parse(text).map(Self::Ended))
    }

    /// Returns the states that a word of a filter means: a state, `open`, or `failed`. Empty: the word has no meaning.
    #[must_use]
    pub fn named(text: &str) -> Vec<Self> {
        match text {
            "open" => Self::OPEN.to_vec(),
            "failed" => {
                let failures = Outcome::ALL.into_iter().filter(|outcome| outcome.is_failure());
                failures.map(Self::Ended).collect()
            }
            _ => Self::parse(text).into_iter().collect(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(fact: &bool) -> bool {
    !fact
}

#[cfg(test)]
mod tests;
