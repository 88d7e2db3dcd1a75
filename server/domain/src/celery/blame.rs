//! Why a run did not come, or did not end: from the last stage seen, and how Beat, broker, queue and workers were then.
//!
//! One fault is told once. What is wrong with a Beat, a worker, a queue or the broker is that one's own incident, and the monitors that
//! are down with it are part of it; as long as its verdict is out, theirs waits. Where the evidence does not suffice, the cause is
//! UNKNOWN: a wrong one is worse than none.

pub(crate) mod fold;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::celery::beat::BeatView;
use crate::celery::beat::crash_loop::{CRASHES, CRASHES_OF_PUT_OFF, Course};
use crate::celery::host::load::HostLoad;
use crate::celery::queue::{NO_WORKER_PATIENCE, REPLACED_WITHIN, UNCONSUMED_PATIENCE};
use crate::celery::result_backend::BackendView;
use crate::celery::worker::stranger::INCIDENT_WITHIN;
use crate::celery::worker::{GHOST_PATIENCE, SKEW_PATIENCE};
use crate::ids::{BrokerId, QueueId, WorkerId};
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{SDK_RETURN, is_to_come};
use crate::monitor::run::{Contest, Run};
use crate::monitor::status::Status;

mod held_up;
mod starving;
#[cfg(test)]
mod tests;
mod unbegun;

pub(crate) use held_up::Outage;
pub use unbegun::SentRun;

/// After another subject's own deadline a monitor is looked at again: late enough that the other was judged before.
pub(crate) const AFTER: TimeDelta = TimeDelta::seconds(2);
/// A broker must have been away for this long to be told: a failover takes seconds.
pub const AWAY_PATIENCE: TimeDelta = TimeDelta::seconds(20);
/// Once a broker is back, Beat sends within this what came due meanwhile: it tries to connect again every few seconds.
pub const BROKER_RETURN: TimeDelta = TimeDelta::seconds(20);
/// A worker finds its broker again within this, once that is back.
const RETURN: TimeDelta = TimeDelta::seconds(60);
/// Queues are looked at every 10 s; news of it may be some seconds on its way.
pub(crate) const NEXT_LOOK: TimeDelta = TimeDelta::seconds(20);

/// A worker that has said nothing for two of its periods, and for so long at least, is not believed to live: a word may take some seconds,
/// and clocks of our machines differ a little.
const MISSED_WORDS: TimeDelta = TimeDelta::seconds(4);

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

    fn is_heard_since(&self, at: DateTime<Utc>) -> bool {
        self.last_seen_at.is_some_and(|seen| seen > at)
    }

    /// It has spoken since then, and goes on: one that misses words may be dead by now.
    fn speaks(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
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

/// What is known when a monitor is judged. Empty for one that no Beat feeds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The Beat that sends it.
    pub beat: Option<BeatView>,
    /// How that goes on from one start to the next.
    pub course: Course,
    /// The broker of its application.
    pub broker: Option<BrokerView>,
    /// Its newest run.
    pub stage: Option<StageView>,
    /// The queues of its application.
    pub queues: Vec<QueueView>,
    /// The workers of its application.
    pub workers: Vec<WorkerView>,
    /// The result backend of its application, where somebody reports trouble with it.
    pub result_backend: Option<BackendView>,
    /// When its last outage was told and when it ended, if that was lately; no end: its incident is open.
    pub backend_outage: Option<(DateTime<Utc>, Option<DateTime<Utc>>)>,
    /// Who of all these has an open incident.
    pub open: Vec<PartOf>,
    /// It is our own probe of the way, not a task of the application.
    pub is_canary: bool,
    /// How long a message may wait.
    pub longest_wait: Option<TimeDelta>,
    /// Queues from which a worker takes messages that reports nothing, and since when runs have been missed there; None: none has yet.
    pub strangers: Vec<(QueueId, Option<DateTime<Utc>>)>,
}

/// Whose incident a monitor is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartOf {
    /// The Beat that feeds it.
    Beat,
    /// A worker.
    Worker(WorkerId),
    /// A queue.
    Queue(QueueId),
    /// The broker.
    Broker(BrokerId),
    /// The result backend, by the id of its application's broker.
    ResultBackend(BrokerId),
}

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// It has an incident of its own.
    Own(Cause),
    /// It is part of another subject's, which has this cause.
    Part(PartOf, Cause),
    /// What is known names another subject, at which nobody may have looked: it is part of an incident about that one, which is opened unless
    /// one is.
    Named(PartOf, Cause),
    /// Another subject's verdict is out until then.
    Wait(DateTime<Utc>),
}

/// What became of a message that was begun more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contested {
    /// One execution goes on, or none: it is as any other run.
    Settled,
    /// It is not known yet.
    Wait(DateTime<Utc>),
    /// Two are alive, or it is begun for ever.
    Trouble(Cause),
}

/// Waits for the verdict on another subject, which falls at its deadline. Not for ever: something may keep it from being judged.
fn wait_for(deadline: DateTime<Utc>, now: DateTime<Utc>) -> Option<Blame> {
    (now < deadline + NEXT_LOOK).then(|| Blame::Wait(deadline.max(now) + AFTER))
}

impl Evidence {
    /// Only a Beat is known.
    #[must_use]
    pub fn of_beat(beat: Option<BeatView>) -> Self {
        Self {
            beat,
            ..Self::default()
        }
    }

    /// Whether somebody of its application had to drop reports since then: that one is missing says nothing.
    pub(crate) fn has_lost_reports(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.beat
            .and_then(|beat| beat.lost_at)
            .is_some_and(|lost| lost >= since && !is_to_come(lost, now))
    }

    /// Until when reports are awaited of what may have happened from `since` on, and was owed by then: a worker did not reach us, and its SDK
    /// delivers what it holds. The gap in which it was owed is waited for to its end; one that starves has a gap after the other, and they are waited
    /// for no longer than the worker may be silent.
    fn of_gap(&self, since: DateTime<Utc>, owed_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<Blame> {
        let back = |worker: &WorkerView| {
            let (from, to) = worker.gap.filter(|(_, to)| since <= *to)?;
            if from <= owed_at {
                return Some(to);
            }
            Some(
                worker
                    .patience()
                    .map_or(to, |patience| to.min(owed_at + patience)),
            )
        };
        let until = self.workers.iter().filter_map(back).max()? + SDK_RETURN + AFTER;
        (now < until).then_some(Blame::Wait(until))
    }

    /// Nobody reported by the deadline of the slot that was due then; `early`: Beat may have sent it by so much before.
    #[must_use]
    pub fn of_missed(&self, due: Option<DateTime<Utc>>, early: TimeDelta, now: DateTime<Utc>) -> Blame {
        self.fold(self.of_slot(due, early, now), due.map(|due| due - early), now)
    }

    fn of_slot(&self, due: Option<DateTime<Utc>>, early: TimeDelta, now: DateTime<Utc>) -> Blame {
        let (Some(beat), Some(due)) = (&self.beat, due) else {
            return Blame::Own(Cause::Missed);
        };
        if let Some(blame) = self.of_broker(now) {
            return blame;
        }
        if let Some(blame) = self.of_result_backend(due - early, now) {
            return blame;
        }
        // The SDK reports that Beat lives after each tick returned: heard from since the slot means that Beat had sent it.
        if beat.last_seen_at.is_none_or(|seen| seen < due) {
            // One that is down, and has a deadline, is heard from: its clock is off, or it floods.
            match (beat.status, beat.deadline_at) {
                (Status::Down, None) if self.course.loops() => {
                    return Blame::Part(PartOf::Beat, Cause::BeatCrashLoop);
                }
                (Status::Down, None) => return Blame::Part(PartOf::Beat, beat.cause()),
                (_, Some(deadline)) => {
                    if let Some(wait) = wait_for(deadline, now) {
                        return wait;
                    }
                }
                (_, None) => {}
            }
        }
        if let Some(blame) = self.of_gap(due, due, now) {
            return blame;
        }
        // It sends what came due while it was away, which takes a moment.
        let away_for = beat.patience().unwrap_or(NEXT_LOOK) + NEXT_LOOK;
        let is_back = |back: &DateTime<Utc>| (due..due + away_for).contains(back) && now < *back + NEXT_LOOK;
        let since_due = |at: &DateTime<Utc>| *at >= due - early;
        let stage = self.stage.as_ref();
        let sent_at = stage.and_then(|stage| stage.published_at).filter(since_due);
        let received_at = stage.and_then(|stage| stage.received_at).filter(since_due);
        match (stage, sent_at, received_at) {
            (Some(stage), Some(_), _) | (Some(stage), _, Some(_)) if stage.is_expired => {
                self.of_expired(stage, now)
            }
            (Some(stage), _, Some(received_at)) => self.of_received(stage, received_at, now),
            (Some(stage), Some(sent_at), None) => self.of_sent(stage, sent_at, now),
            _ if self.is_look_awaited(due, now) => Blame::Wait(now + AFTER),
            _ if beat.back_at.as_ref().is_some_and(is_back) => Blame::Wait(now + AFTER),
            _ if self.is_broker_just_back(now) => Blame::Wait(now + AFTER),
            _ if beat.send_failed_at.as_ref().is_some_and(since_due) => Blame::Own(Cause::BrokerDown),
            _ if let Some(blame) = self.of_crashes(CRASHES, now) => blame,
            _ if self.has_lost_reports(due - early, now) => Blame::Own(Cause::Unknown),
            // By a clock that is off it sends at other times.
            _ if beat.skewed_since.is_some() => {
                let skew = self.of_skew(|_| false, now);
                skew.unwrap_or(Blame::Own(Cause::Unknown))
            }
            // It sends other entries: why not this one is not known. That it sends nothing is known only of one that says what it sends.
            _ if beat.sent_at.as_ref().is_none_or(since_due) => Blame::Own(Cause::Unknown),
            _ if beat.last_seen_at.as_ref().is_some_and(since_due) => Blame::Own(Cause::BeatStalled),
            _ => Blame::Own(Cause::Unknown),
        }
    }

    /// Beat has put the entry off at each of its starts: it forgets when it last sent it. Whether it was told to end each time is known soon.
    #[must_use]
    pub fn of_put_off(&self, now: DateTime<Utc>) -> Blame {
        self.of_crashes(CRASHES_OF_PUT_OFF, now)
            .unwrap_or(Blame::Own(Cause::ScheduleReset))
    }

    /// Beat has crashed so often one time after the other. When one is missing it is waited for until that is known.
    fn of_crashes(&self, enough: usize, now: DateTime<Utc>) -> Option<Blame> {
        let Course { crashes, doubt_until } = self.course;
        if crashes >= enough {
            Some(Blame::Named(PartOf::Beat, Cause::BeatCrashLoop))
        } else if crashes + 1 >= enough && doubt_until.is_some_and(|until| now < until) {
            Some(Blame::Wait(now + AFTER))
        } else {
            None
        }
    }

    fn of_broker(&self, now: DateTime<Utc>) -> Option<Blame> {
        let broker = self.broker?;
        let since = broker.away_since?;
        if broker.status == Status::Down {
            return Some(Blame::Part(PartOf::Broker(broker.id), Cause::BrokerDown));
        }
        // Who looked at it may be gone, too.
        let told_at = since + AWAY_PATIENCE + NEXT_LOOK;
        (told_at > now).then_some(Blame::Wait(told_at))
    }

    /// Whether the broker has only just come back: Beat and the workers find it one after the other, and Beat then sends what came due meanwhile.
    fn is_broker_just_back(&self, now: DateTime<Utc>) -> bool {
        let back_at = self.broker.and_then(|broker| broker.back_at);
        back_at.is_some_and(|back| (back..back + BROKER_RETURN).contains(&now))
    }

    /// Whether somebody is about to look at the broker, and has not since then.
    fn is_look_awaited(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let seen_at = self.broker.and_then(|broker| broker.seen_at);
        now < since + NEXT_LOOK && seen_at.is_some_and(|seen| seen < since + AFTER)
    }

    /// It was sent, and no worker has said that it took it.
    fn of_sent(&self, stage: &StageView, sent_at: DateTime<Utc>, now: DateTime<Utc>) -> Blame {
        let Some(name) = stage.queue.as_deref() else {
            return Blame::Own(Cause::Unknown);
        };
        let queue = self.queues.iter().find(|queue| queue.name == name);
        if let Some(queue) = queue
            && let Some(trouble) = queue.trouble
        {
            if queue.status == Status::Down {
                return Blame::Part(PartOf::Queue(queue.id), trouble);
            }
            // As the queue itself is judged: a deployment is waited for.
            let mut own = self.workers.iter().filter(|worker| !worker.is_foreign);
            let nobody = own.all(|worker| worker.standing() != Status::Up);
            let left_at = self
                .workers
                .iter()
                .filter(|worker| worker.status == Status::Paused && worker.consumes(name))
                .filter_map(|worker| worker.last_seen_at)
                .max();
            let since = queue.since.unwrap_or(queue.seen_at);
            let told_at = if nobody {
                since + NO_WORKER_PATIENCE
            } else {
                (since + UNCONSUMED_PATIENCE).max(left_at.map_or(since, |at| at + REPLACED_WITHIN))
            };
            let told_at = told_at + NEXT_LOOK;
            if told_at > now {
                return Blame::Wait(told_at);
            }
        }
        let mut up = 0;
        let mut troubled = None;
        let mut cut_off = None;
        for worker in self.workers.iter().filter(|worker| worker.consumes(name)) {
            match worker.standing() {
                Status::Up if !worker.speaks(sent_at, now) => {
                    if let Some(wait) = worker.awaited(sent_at, now) {
                        return wait;
                    }
                }
                // The loop of one that starves turns seldom, and says nothing of its connection.
                Status::Up if worker.load.is_starving() => up += 1,
                // It is about to take it: workers come back some seconds after their broker.
                Status::Up if !worker.connected && now < sent_at + RETURN => return Blame::Wait(now + AFTER),
                Status::Up if !worker.connected => cut_off = Some(worker),
                Status::Up => up += 1,
                Status::Down => troubled = Some(worker),
                Status::New | Status::Paused => {}
            }
        }
        if up == 0
            && let Some(worker) = troubled
        {
            let cause = worker.trouble.unwrap_or(Cause::WorkerLost);
            return Blame::Part(PartOf::Worker(worker.id), cause);
        }
        // Somebody else looks at the broker, and reaches it.
        if up == 0
            && let Some(worker) = cut_off
            && !queue.is_some_and(|queue| queue.has_others)
        {
            return Blame::Named(PartOf::Worker(worker.id), Cause::GhostWorker);
        }
        if self.is_look_awaited(sent_at, now) {
            return Blame::Wait(now + AFTER);
        }
        let Some(queue) = queue.filter(|queue| queue.seen_at >= sent_at + AFTER) else {
            return Blame::Own(Cause::Unknown);
        };
        // What waits came after it: it is not among that. Clocks of senders differ a little.
        let is_consumed = up > 0 || queue.has_others;
        let waits = queue.depth > 0 && queue.oldest_at.is_none_or(|oldest| oldest <= sent_at + AFTER);
        if waits {
            // What a limit holds back fills what a worker takes in, and the rest waits before it.
            let consumers = || {
                self.workers
                    .iter()
                    .filter(|worker| worker.consumes(name) && worker.standing() == Status::Up)
            };
            if up > 0 && consumers().all(|worker| worker.limits(stage)) {
                return Blame::Own(Cause::RateLimited);
            }
        }
        // Who could take what waits and does not hangs, which is told of it soon. A message that it has taken in and not seen is in no queue.
        let deaf = self
            .workers
            .iter()
            .filter(|worker| {
                worker.consumes(name)
                    && worker.standing() == Status::Up
                    && worker.has_a_free_process()
                    && !worker.load.is_starving()
            })
            .map(|worker| worker.progress_at + GHOST_PATIENCE + NEXT_LOOK)
            .min();
        if queue.depth > 0
            && let Some(told_at) =
                deaf.filter(|told_at| *told_at > now && sent_at + GHOST_PATIENCE + NEXT_LOOK > now)
        {
            return Blame::Wait(told_at.min(now + NEXT_LOOK));
        }
        if waits {
            return Blame::Own(if is_consumed {
                Cause::QueueSlaBreach
            } else {
                Cause::Unknown
            });
        }
        // A worker that reports nothing may have taken it: the next sample opens one incident about the queue, which this one joins.
        if let Some((_, missed_since)) = self.strangers.iter().find(|(id, _)| *id == queue.id) {
            return if missed_since.is_none_or(|since| now < since + INCIDENT_WITHIN) {
                Blame::Wait(now + AFTER)
            } else {
                Blame::Own(Cause::WorkerWithoutSdk)
            };
        }
        // What nobody accounts for may be held by a dead connection: it comes back, and is not lost.
        let at_work = self
            .workers
            .iter()
            .filter(|worker| worker.standing() == Status::Up);
        let held: i64 = at_work.map(|worker| worker.unacked + worker.held).sum();
        let unaccounted = self
            .broker
            .and_then(|broker| broker.unacked)
            .is_some_and(|unacked| unacked > held);
        // Where clocks differ, what may be run for a while only is thrown away as too old.
        if let Some(blame) = self.of_skew(|worker| worker.consumes(name), now) {
            return blame;
        }
        // A lost worker may have taken it: what it had not acknowledged comes back late, and in any order.
        let may_hold_it = |worker: &&WorkerView| {
            worker.consumes(name)
                && worker.status == Status::Down
                && worker.trouble.is_none()
                && (unaccounted || worker.unacked > 0)
        };
        if let Some(worker) = self.workers.iter().find(may_hold_it) {
            return Blame::Part(PartOf::Worker(worker.id), Cause::WorkerLost);
        }
        // Where nobody is known to consume the queue, one who says nothing may have taken it.
        Blame::Own(if unaccounted || up == 0 || self.has_lost_reports(sent_at, now) {
            Cause::Unknown
        } else {
            Cause::LostInBroker
        })
    }

    /// The queue out of which a worker that reports nothing has taken the run, as far as is known: it was sent there, it waits there no
    /// more, and no worker that reports received it.
    #[must_use]
    pub fn vanished_from(&self) -> Option<QueueId> {
        let stage = self.stage.as_ref().filter(|stage| stage.received_at.is_none())?;
        let sent_at = stage.published_at?;
        let queue = self
            .queues
            .iter()
            .find(|queue| Some(&queue.name) == stage.queue.as_ref())?;
        let waits = queue.depth > 0 && queue.oldest_at.is_none_or(|oldest| oldest <= sent_at + AFTER);
        let is_taken = !waits && queue.seen_at >= sent_at + AFTER;
        (is_taken && self.strangers.iter().any(|(id, _)| *id == queue.id)).then_some(queue.id)
    }

    /// A worker threw it away as too old, and a clock is wrong. If that turns out to be no trouble of Beat's or of a worker's, it had expired.
    fn of_expired(&self, stage: &StageView, now: DateTime<Utc>) -> Blame {
        let queue = stage.queue.as_deref();
        let skew = self.of_skew(|worker| queue.is_some_and(|queue| worker.consumes(queue)), now);
        skew.unwrap_or(Blame::Own(Cause::Expired))
    }

    /// The clock of Beat, or of a worker that may have thrown the message away, is off: told, or about to be.
    fn of_skew(&self, may_drop_it: impl Fn(&WorkerView) -> bool, now: DateTime<Utc>) -> Option<Blame> {
        let beat = self
            .beat
            .and_then(|beat| Some((PartOf::Beat, beat.status, beat.skewed_since?)));
        let workers = self.workers.iter().filter(|worker| may_drop_it(worker));
        let worker = workers
            .filter_map(|worker| Some((PartOf::Worker(worker.id), worker.status, worker.skewed_since?)));
        let (part_of, status, since) = beat.into_iter().chain(worker).min_by_key(|(.., since)| *since)?;
        if status == Status::Down {
            return Some(Blame::Part(part_of, Cause::ClockSkew));
        }
        // It is told with the next report of that one, which may be late.
        let told_at = since + SKEW_PATIENCE;
        (told_at + NEXT_LOOK > now).then(|| Blame::Wait(told_at.max(now) + AFTER))
    }

    /// A worker took it and has not begun it.
    fn of_received(&self, stage: &StageView, received_at: DateTime<Utc>, now: DateTime<Utc>) -> Blame {
        let name = stage.worker.as_deref();
        let Some(worker) = self
            .workers
            .iter()
            .find(|worker| Some(worker.name.as_str()) == name)
        else {
            return Blame::Own(Cause::Unknown);
        };
        match worker.standing() {
            Status::Down => {
                let cause = worker.trouble.unwrap_or(Cause::WorkerLost);
                return Blame::Part(PartOf::Worker(worker.id), cause);
            }
            // It gave back what it had not begun.
            Status::Paused | Status::New => return self.of_sent(stage, received_at, now),
            Status::Up => {}
        }
        // Of several that bear one name the younger one proves nothing.
        if worker.live.len() < 2 && worker.started_at.is_some_and(|started| started > received_at) {
            return Blame::Own(Cause::WorkerLost);
        }
        if !worker.speaks(received_at, now) {
            return worker
                .awaited(received_at, now)
                .unwrap_or(Blame::Own(Cause::Unknown));
        }
        if worker.limits(stage) {
            return Blame::Own(Cause::RateLimited);
        }
        // A worker compares `expires` once more before it begins a message, and does not report a canary that it drops then. Where all that it
        // holds has begun, it has dropped this one; by a wrong clock that may be too early.
        let has_begun_all = worker.reserved <= worker.active;
        if has_begun_all && let Some(blame) = self.of_skew(|other| other.id == worker.id, now) {
            return blame;
        }
        if worker.has_a_free_process() {
            // The report that it began is on its way.
            if (received_at..received_at + AFTER).contains(&now) {
                return Blame::Wait(received_at + AFTER);
            }
            // Nothing keeps it from beginning: it hangs, which is told of it soon, or waits for its time. One that goes on with others
            // for longer does not hang.
            let got_on_at = worker.progress_at.min(received_at + GHOST_PATIENCE);
            let told_at = got_on_at + GHOST_PATIENCE + NEXT_LOOK;
            let may_hang = worker.held == 0 && worker.reserved > worker.active && !worker.load.is_starving();
            return if may_hang && told_at > now {
                Blame::Wait(told_at)
            } else {
                Blame::Own(Cause::Unknown)
            };
        }
        let idle = self.workers.iter().any(|other| {
            other.id != worker.id
                && other.standing() == Status::Up
                && other.trouble.is_none_or(|trouble| trouble == Cause::ClockSkew)
                && other.has_a_free_process()
                && stage.queue.as_deref().is_some_and(|queue| other.consumes(queue))
        });
        Blame::Own(if idle {
            Cause::PrefetchStarvation
        } else {
            Cause::QueueSlaBreach
        })
    }

    /// A run is open past its deadline.
    #[must_use]
    pub fn of_overrun(&self, run: &Run, now: DateTime<Utc>) -> Blame {
        let name = run.detail.worker.as_deref();
        let worker = self
            .workers
            .iter()
            .find(|worker| Some(worker.name.as_str()) == name);
        let (Some(worker), Some(started_at)) = (worker, run.started_at) else {
            return Blame::Own(Cause::Overrun);
        };
        if let Some(blame) = self.of_held_up(worker.id, now) {
            return blame;
        }
        match worker.standing() {
            Status::Down if worker.trouble.is_none() => {
                return Blame::Part(PartOf::Worker(worker.id), Cause::WorkerLost);
            }
            Status::Up => {}
            Status::Down | Status::Paused | Status::New => return Blame::Own(Cause::Overrun),
        }
        // Whose incarnation is known is decided when that ends. Of two workers of one name the younger one proves nothing.
        let is_followed = run.detail.incarnation.is_some() && worker.incarnation.is_some();
        if !is_followed && worker.started_at.is_some_and(|started| started > started_at) {
            return Blame::Own(Cause::WorkerLost);
        }
        if let Some(blame) = self.of_gap(started_at, run.deadline_at.unwrap_or(now), now) {
            return blame;
        }
        if !worker.speaks(started_at + AFTER, now) {
            return worker
                .deadline_at
                .and_then(|deadline| wait_for(deadline, now))
                .unwrap_or(Blame::Own(Cause::Overrun));
        }
        let is_gone = match (&worker.running, run.run_id) {
            // It may have ended, and the report of it is lost.
            _ if is_followed && worker.incarnation != run.detail.incarnation => false,
            (Some(running), Some(id)) => !running.contains(&id) && !self.has_lost_reports(started_at, now),
            _ => false,
        };
        // Between two tries it runs nowhere: nobody was killed.
        Blame::Own(if is_gone && run.attempts > 0 {
            Cause::WorkerKilled
        } else {
            Cause::Overrun
        })
    }

    /// A message was begun again: how many of its executions are alive?
    #[must_use]
    pub fn of_contested(&self, run: &Run, now: DateTime<Utc>) -> Contested {
        if run.contest == Some(Contest::Repeated) {
            return Contested::Trouble(Cause::DuplicateRun);
        }
        let (Some(id), Some(deadline)) = (run.run_id, run.deadline_at) else {
            return Contested::Settled;
        };
        // Who says what it runs must have said so since the newest execution began.
        let asked_at = deadline - crate::monitor::run::CONTEST_PATIENCE + AFTER;
        let mut alive = 0;
        for worker in self
            .workers
            .iter()
            .filter(|worker| worker.standing() == Status::Up)
        {
            let Some(running) = &worker.running else { continue };
            if !worker.is_heard_since(asked_at) {
                if now < deadline + NEXT_LOOK {
                    return Contested::Wait(now + AFTER);
                }
                // What it said before proves nothing of now.
                continue;
            }
            alive += running.iter().filter(|one| **one == id).count();
        }
        let needed = if run.contest == Some(Contest::Ended) { 1 } else { 2 };
        if alive >= needed {
            Contested::Trouble(Cause::DuplicateRun)
        } else if run.attempts >= crate::monitor::run::LOOP_ATTEMPTS && run.contest != Some(Contest::Ended) {
            Contested::Trouble(Cause::RedeliveryLoop)
        } else {
            Contested::Settled
        }
    }
}
