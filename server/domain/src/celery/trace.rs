//! What was told of one run, by several processes and in no order, as one account: its trace.
//!
//! Who publishes a run, the worker's main process and its child each send what they saw on a way of their own, and send it again when
//! they are not sure that it arrived. So a trace is nothing but the set of its stages: [`fold`] adds one, once, and everything else is
//! read from the set. Any order and any repetition of the same stages gives the same trace (proved in `tests.rs`).
//!
//! Stages are put in order by attempt first and time second: clocks of machines differ by more than a short task takes, but Celery's
//! count of retries is never wrong.

use std::cmp::Reverse;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::monitor::run::Outcome;

use crate::limits::TRACE_STAGES;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// It was put into the broker's hands.
    Published,
    /// A worker took it from its queue.
    Received,
    /// An attempt began.
    Started,
    /// Nobody said how it ended, and nobody will: its worker is gone, or it is too long ago. Deadbeat's own word; anybody's is better.
    GivenUp,
    /// An attempt ended and another one comes.
    Retried,
    /// It ended.
    Finished,
}

/// One told stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The event's id: a stage that is told twice counts once.
    pub id: Uuid,
    /// What happened.
    pub kind: StageKind,
    /// When, by our clock.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub at: DateTime<Utc>,
    /// How often the run had been retried before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i32,
    /// Which attempt; None: who tells it does not run the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Uuid>,
    /// The worker's node name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The broker delivered the message before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redelivered: bool,
    /// The process that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// Of an end: how. Never None there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Of an end by a time limit: the soft one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub soft: bool,
    /// Of an end: how long the attempt took, in seconds, by the worker's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// The exception's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A stage with what it says of the whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The stage.
    pub stage: Stage,
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// Since when its entry was due.
    pub slot: Option<DateTime<Utc>>,
    /// Not to be run before. That of a retry is not the run's.
    pub eta: Option<DateTime<Utc>>,
    /// When its message was published.
    pub published_at: Option<DateTime<Utc>>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceState {
    /// In its queue, as far as is known.
    Published,
    /// With a worker, waiting for its time or for a free process.
    Received,
    /// Running.
    Started,
    /// It waits for its next attempt.
    Retried,
    /// It ended so.
    Ended(Outcome),
}

/// The told stages of one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// The task's name.
    pub task: Option<String>,
    /// Celery's task id.
    pub task_id: Option<String>,
    /// Since when its entry was due.
    pub slot: Option<DateTime<Utc>>,
    /// Not to be run before.
    pub eta: Option<DateTime<Utc>>,
    /// When it was first published: as who sent it says, else as its message does.
    pub published_at: Option<DateTime<Utc>>,
    /// In order. Of more than [`TRACE_STAGES`] the first and the last are kept, half of each.
    pub stages: Vec<Stage>,
    /// Stages that are not kept. One of those that is told again counts again: their ids are forgotten.
    pub more_stages: i32,
    /// Starts among those.
    pub more_starts: i32,
}

/// Adds what was told. False: that stage is known already.
pub fn fold(trace: &mut Trace, told: &Told) -> bool {
    // Of two that differ the greater one, so that it does not matter which came first.
    join(&mut trace.task, &told.task, |kept, new| new > kept);
    join(&mut trace.task_id, &told.task_id, |kept, new| new > kept);
    join(&mut trace.slot, &told.slot, |kept, new| new < kept);
    if sent_at(trace).is_none() {
        join(&mut trace.published_at, &told.published_at, |kept, new| {
            new < kept
        });
    }
    if told.stage.retries == 0 {
        join(&mut trace.eta, &told.eta, |kept, new| new > kept);
    }
    let stage = &told.stage;
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

/// When who first sent the run says that it was sent. All others read that from the message, which has it by the sender's clock.
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

/// The run id that the SDK gives to the run with this task id: the id itself, made into a UUID where the application chose another form.
#[must_use]
pub fn run_id_of(task_id: &str) -> Uuid {
    Uuid::try_parse(task_id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, task_id.as_bytes()))
}

/// The order of stages: attempts, of each its sending, then time; what happens at one instant, as runs go. So the first sending is never among those
/// that are not kept.
fn order(stage: &Stage) -> (i32, bool, DateTime<Utc>, StageKind, Uuid) {
    let is_later = stage.kind != StageKind::Published;
    (stage.retries, is_later, stage.at, stage.kind, stage.id)
}

impl Trace {
    /// Where the run stands: its last word.
    ///
    /// That is the last start or end of the last attempt. What the main process says of an end (`time_limit`, `lost`, `revoked`) is
    /// better than the `aborted` of the child that it ended. A message that was delivered again after that, and is not begun yet,
    /// opens the run anew.
    #[must_use]
    pub fn state(&self) -> TraceState {
        let Some((word, at)) = self.last_word() else {
            return if self.of_level().any(|stage| stage.kind == StageKind::Received) {
                TraceState::Received
            } else if self.level() > 0 {
                TraceState::Retried
            } else {
                TraceState::Published
            };
        };
        if word.kind != StageKind::Retried && self.waits_again(at) {
            return TraceState::Received;
        }
        match word.kind {
            StageKind::Retried => TraceState::Retried,
            StageKind::Finished => TraceState::Ended(word.outcome.unwrap_or(Outcome::Lost)),
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

    /// The stage of the last attempt that says how it stands, and when that was. None: it has not begun.
    fn last_word(&self) -> Option<(&Stage, DateTime<Utc>)> {
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
        let (word, at) = self
            .of_level()
            .filter(|stage| stage.kind >= StageKind::Started)
            .filter(|stage| stage.kind != StageKind::Started || !is_ended(stage))
            // An end is never before its start, whatever two readings of the clock say.
            .map(|stage| {
                let start = start_of(stage.attempt).map_or(stage.at, |start| start.at);
                (stage, stage.at.max(start))
            })
            .max_by_key(|(stage, at)| (*at, stage.kind, stage.id))?;
        if word.outcome != Some(Outcome::Aborted) {
            return Some((word, at));
        }
        let began = start_of(word.attempt).map(|start| start.at);
        let from_outside = self.of_level().rev().find(|stage| {
            matches!(
                stage.outcome,
                Some(Outcome::TimeLimit | Outcome::Lost | Outcome::Revoked)
            ) && stage.attempt.is_none()
                && began.is_none_or(|began| stage.at >= began)
        });
        Some((from_outside.unwrap_or(word), at))
    }

    /// A message was delivered again after `at`, and has not been begun. By count as well as by time: the main process and its child
    /// read the same clock at different moments.
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

    /// The last that is known of something, in the order of the stages.
    fn last<'a, T>(&'a self, what: impl Fn(&'a Stage) -> Option<T>) -> Option<T> {
        self.stages.iter().rev().find_map(what)
    }

    /// When a worker first took it.
    #[must_use]
    pub fn received_at(&self) -> Option<DateTime<Utc>> {
        self.first(StageKind::Received)
    }

    /// When its first attempt began.
    #[must_use]
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        self.first(StageKind::Started)
    }

    /// When it ended; None: it has not, or nobody knows when.
    #[must_use]
    pub fn finished_at(&self) -> Option<DateTime<Utc>> {
        let (word, at) = self.last_word()?;
        let has_ended = matches!(self.state(), TraceState::Ended(_)) && word.kind == StageKind::Finished;
        has_ended.then_some(at)
    }

    /// From its publishing, or its ETA where that is later, to its first start.
    #[must_use]
    pub fn wait(&self) -> Option<TimeDelta> {
        let wanted = self.published_at.max(self.eta)?;
        let wait = self.started_at()? - wanted;
        Some(wait.max(TimeDelta::zero()))
    }

    /// How long its last attempt took, in seconds, when the run has ended: by the worker's own clock, or from start to end.
    #[must_use]
    pub fn run_seconds(&self) -> Option<f64> {
        let end = self.finished_at()?;
        let (word, _) = self.last_word()?;
        let measured = word.duration_seconds;
        measured.or_else(|| {
            let start = self
                .of_level()
                .rev()
                .find(|stage| stage.kind == StageKind::Started)?;
            Some(((end - start.at).num_microseconds()? as f64 / 1e6).max(0.0))
        })
    }

    /// Attempts that began. A message delivered twice makes two.
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

    /// Whether the broker delivered it more than once.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.stages.iter().any(|stage| stage.redelivered)
    }

    /// The worker that was last heard of it.
    #[must_use]
    pub fn worker(&self) -> Option<&str> {
        self.last(|stage| stage.worker.as_deref())
    }

    /// Its queue.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        self.last(|stage| stage.queue.as_deref())
    }

    /// The last exception's class, unless all ended well.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self.state() {
            TraceState::Ended(Outcome::Success | Outcome::Ignored) => None,
            _ => self.last(|stage| stage.error.as_deref()),
        }
    }

    /// When the last of it happened.
    #[must_use]
    pub fn heard_at(&self) -> Option<DateTime<Utc>> {
        self.stages.iter().map(|stage| stage.at).max()
    }

    /// The stage that gives up a run of which nobody tells the end. It stands at the run's last stage: whatever really happened after
    /// that, and is told late, has the last word.
    #[must_use]
    pub fn given_up(&self, id: Uuid, why: &str) -> Told {
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
        Told {
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
    /// All states of runs that have not ended.
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

    /// The states that a person asks for by one word: a state, `open`, or `failed`. Empty: there is no such word.
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
