//! Why a run did not come, or did not end: from the last stage seen, and how Beat, broker, queue and workers were then.
//!
//! One fault is told once. What is wrong with a Beat, a worker, a queue or the broker is that one's own incident, and the monitors that
//! are down with it are part of it; as long as its verdict is out, theirs waits. Where the evidence does not suffice, the cause is
//! UNKNOWN: a wrong one is worse than none.

pub(crate) mod fold;
mod received;
mod sent;
pub mod view;

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::beat::BeatView;
use crate::celery::beat::crash_loop::{CRASHES, CRASHES_OF_PUT_OFF, Course};
use crate::celery::result_backend::BackendView;
use crate::ids::{BrokerId, QueueId, WorkerId};
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{SDK_RETURN, is_to_come};
use crate::monitor::status::Status;

mod held_up;
mod starving;
#[cfg(test)]
mod tests;
mod unbegun;

pub(crate) use held_up::Outage;
pub use unbegun::SentRun;

use self::view::{BrokerView, QueueView, StageView, WorkerView};

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
}
