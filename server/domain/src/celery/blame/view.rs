//! The facts about the parts that a monitor depends on, as verdicts use them.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::MISSED_HEARTBEATS;
use crate::celery::host::load::HostLoad;
use crate::ids::{BrokerId, QueueId, WorkerId};
use crate::incident::cause::Cause;
use crate::monitor::status::Status;

/// The broker of an application.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrokerView {
    /// Its id.
    pub id: BrokerId,
    /// `down`: the broker is away, and has an incident.
    pub status: Status,
    /// Since when samples have shown it to be away.
    pub down_since: Option<DateTime<Utc>>,
    /// Until when it is in doubt whether the broker is away: one process does not reach it, and no other one has sampled it since.
    pub doubt_until: Option<DateTime<Utc>>,
    /// When the last incident about it ended, if that is not long ago.
    pub back_at: Option<DateTime<Utc>>,
    /// Number of messages that workers hold, over all queues, if the broker shows that.
    pub unacked: Option<i64>,
    /// When it was last sampled.
    pub seen_at: Option<DateTime<Utc>>,
    /// The broker redelivers an unacknowledged message after this. None: it does so when the connection is closed.
    pub visibility_timeout: Option<TimeDelta>,
}

/// A queue as of its last sample.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its id.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// `down`: its fault has an incident.
    pub status: Status,
    /// Its fault.
    pub trouble: Option<Cause>,
    /// Since when the fault lasts.
    pub since: Option<DateTime<Utc>>,
    /// Number of waiting messages.
    pub depth: i64,
    /// When the oldest of them was sent, if the broker shows that.
    pub oldest_at: Option<DateTime<Utc>>,
    /// A process that does not report consumes it.
    pub has_others: bool,
    /// When it was last sampled.
    pub seen_at: DateTime<Utc>,
}

/// A worker as of its last report.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its id.
    pub id: WorkerId,
    /// Celery's node name.
    pub name: String,
    /// It belongs to another application on the same broker.
    pub is_foreign: bool,
    /// `down`: it is lost or has a fault, and has an incident.
    pub status: Status,
    /// Its fault while it still reports.
    pub trouble: Option<Cause>,
    /// When its last report came.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// How often it reports.
    pub period: TimeDelta,
    /// When it is declared lost.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When it started, by the server's clock.
    pub started_at: Option<DateTime<Utc>>,
    /// When it last made progress, or had nothing to do.
    pub progress_at: DateTime<Utc>,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// It is connected to the broker.
    pub connected: bool,
    /// Number of tasks that it executes.
    pub active: i64,
    /// Number of tasks that it can execute at once.
    pub processes: i64,
    /// Number of messages that it has received, and whose tasks have not ended.
    pub reserved: i64,
    /// The number of these that the broker keeps until they are acknowledged. All of them if that is not known.
    pub unacked: i64,
    /// Number of messages held by a rate limit, or for their ETA.
    pub held: i64,
    /// Since when its clock skew has been too large.
    pub skewed_since: Option<DateTime<Utc>>,
    /// The tasks whose rate limits hold messages in it.
    pub limited: Vec<String>,
    /// The runs that it reports as executing, once for each execution. None: it does not report them, or there are too
    /// many.
    pub running: Option<Vec<Uuid>>,
    /// The incarnation that sent this report. None: an older SDK.
    pub incarnation: Option<Uuid>,
    /// The incarnations of its name that count as alive.
    pub live: Vec<Uuid>,
    /// When its last gap in reporting began and ended.
    pub gap: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// The load of its host.
    pub load: HostLoad,
}

impl WorkerView {
    /// The status that counts for a verdict. A worker that only has clock skew still works.
    pub(crate) fn standing(&self) -> Status {
        match (self.status, self.trouble) {
            (Status::Down, Some(Cause::ClockSkew)) => Status::Up,
            (status, _) => status,
        }
    }

    pub(crate) fn consumes(&self, queue: &str) -> bool {
        self.queues.iter().any(|name| name == queue)
    }

    pub(super) fn has_reported_since(&self, at: DateTime<Utc>) -> bool {
        self.last_seen_at.is_some_and(|seen| seen > at)
    }

    /// True if it has reported since then, and is not silent now. A worker that misses reports may be dead.
    pub(super) fn is_reporting(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let silence = (self.period * 2).max(MISSED_HEARTBEATS);
        self.last_seen_at
            .is_some_and(|seen| seen > since && now <= seen + silence)
    }

    /// True if a rate limit of this run's task holds messages in it.
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
    /// When a worker received it.
    pub received_at: Option<DateTime<Utc>>,
    /// When the last of these stages was reported.
    pub heard_at: DateTime<Utc>,
    /// The queue that it was sent to.
    pub queue: Option<String>,
    /// The worker that received it.
    pub worker: Option<String>,
    /// The task's name.
    pub task: Option<String>,
    /// A worker dropped its message as too old.
    pub is_expired: bool,
}
