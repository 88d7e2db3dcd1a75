//! What a verdict sees of the parts that a monitor depends on.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::MISSED_WORDS;
use crate::celery::host::load::HostLoad;
use crate::ids::{BrokerId, QueueId, WorkerId};
use crate::incident::cause::Cause;
use crate::monitor::status::Status;

/// The broker of an application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrokerView {
    /// Its id.
    pub id: BrokerId,
    /// down: that it is away is told.
    pub status: Status,
    /// Since when it has been seen to be away.
    pub away_since: Option<DateTime<Utc>>,
    /// When the last incident about it ended, if that is not long ago.
    pub back_at: Option<DateTime<Utc>>,
    /// Messages that workers hold, over all queues, as far as the broker says.
    pub unacked: Option<i64>,
    /// When somebody last looked at it.
    pub seen_at: Option<DateTime<Utc>>,
    /// After this it delivers a message again that was not acknowledged; None: it does so when the connection is closed.
    pub visibility_timeout: Option<TimeDelta>,
}

/// A queue as it was last seen.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its id.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// down: its trouble is told.
    pub status: Status,
    /// What is wrong with it.
    pub trouble: Option<Cause>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// Messages that wait.
    pub depth: i64,
    /// When the oldest of them was sent, where the broker shows it.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Somebody who does not report takes messages from it.
    pub has_others: bool,
    /// When it was last looked at.
    pub seen_at: DateTime<Utc>,
}

/// A worker as it last said.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its id.
    pub id: WorkerId,
    /// Celery's node name.
    pub name: String,
    /// It is another application's, on the same broker.
    pub is_foreign: bool,
    /// down: that it is lost, or in trouble, is told.
    pub status: Status,
    /// What is wrong with it although it is heard from.
    pub trouble: Option<Cause>,
    /// When it was last heard from.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// How often it says how it is.
    pub period: TimeDelta,
    /// When it is declared lost.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When it started, by our clock.
    pub started_at: Option<DateTime<Utc>>,
    /// When it last got something done, or had nothing to do.
    pub progress_at: DateTime<Utc>,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// Its connection to the broker stands.
    pub connected: bool,
    /// Tasks that run.
    pub active: i64,
    /// Tasks that can run at once.
    pub processes: i64,
    /// Messages taken in and not ended.
    pub reserved: i64,
    /// Of these, those that the broker keeps until they are acknowledged; all of them, where that is not known.
    pub unacked: i64,
    /// Messages held back by a rate limit, or for their time.
    pub held: i64,
    /// Since when its clock has been seen to be off.
    pub skewed_since: Option<DateTime<Utc>>,
    /// The tasks whose rate limits hold messages back in it.
    pub limited: Vec<String>,
    /// The runs that it says it executes, each once an execution; None: it does not say, or there are more.
    pub running: Option<Vec<Uuid>>,
    /// The incarnation that said all this; None: an older SDK.
    pub incarnation: Option<Uuid>,
    /// The incarnations of its name that are taken to live.
    pub live: Vec<Uuid>,
    /// When its last gap in reporting began and ended.
    pub gap: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// The load of its host.
    pub load: HostLoad,
}

impl WorkerView {
    /// One whose clock is off works all the same.
    pub(crate) fn standing(&self) -> Status {
        match (self.status, self.trouble) {
            (Status::Down, Some(Cause::ClockSkew)) => Status::Up,
            (status, _) => status,
        }
    }

    pub(crate) fn consumes(&self, queue: &str) -> bool {
        self.queues.iter().any(|name| name == queue)
    }

    pub(super) fn is_heard_since(&self, at: DateTime<Utc>) -> bool {
        self.last_seen_at.is_some_and(|seen| seen > at)
    }

    /// It has spoken since then, and goes on: one that misses words may be dead by now.
    pub(super) fn speaks(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let silence = (self.period * 2).max(MISSED_WORDS);
        self.last_seen_at
            .is_some_and(|seen| seen > since && now <= seen + silence)
    }

    /// A rate limit of this run's task holds messages back in it.
    pub(crate) fn limits(&self, stage: &StageView) -> bool {
        let task = stage.task.as_ref();
        task.is_some_and(|task| self.limited.contains(task))
    }

    pub(crate) fn has_a_free_process(&self) -> bool {
        self.active < self.processes
    }
}

/// How far the newest run got before it began.
#[derive(Debug, Clone, PartialEq)]
pub struct StageView {
    /// When it was sent.
    pub published_at: Option<DateTime<Utc>>,
    /// When a worker took it.
    pub received_at: Option<DateTime<Utc>>,
    /// When the last of this was heard.
    pub heard_at: DateTime<Utc>,
    /// Where it was sent to.
    pub queue: Option<String>,
    /// Who took it.
    pub worker: Option<String>,
    /// The task's name.
    pub task: Option<String>,
    /// A worker threw its message away as too old.
    pub is_expired: bool,
}
