//! Finds why a run did not come, or did not end. The evidence is the last stage of the run, and the state of Beat,
//! broker, queue and workers.
//!
//! One fault is one incident. A fault of a Beat, a worker, a queue or the broker has its own incident, and the monitors
//! that it brings down are members of that incident. These monitors wait until the subject is judged. If the evidence
//! does not suffice, the cause is UNKNOWN: a wrong cause is worse than none.

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

/// How long after the deadline of another subject a monitor is judged again, so that the other subject is judged first.
pub(crate) const AFTER: TimeDelta = TimeDelta::seconds(2);
/// A broker must be away for this long before an incident opens. A failover takes seconds.
pub const BROKER_DOWN_PATIENCE: TimeDelta = TimeDelta::seconds(20);
/// Once a broker is back, Beat sends the overdue entries within this, because it tries to reconnect every few seconds.
pub const BROKER_RETURN: TimeDelta = TimeDelta::seconds(20);
/// Once a broker is back, a worker reconnects to it within this.
const RETURN: TimeDelta = TimeDelta::seconds(60);
/// The next sample of a queue comes within this. Queues are sampled every 10 s, and a sample may be delayed by some
/// seconds.
pub(crate) const NEXT_SAMPLE: TimeDelta = TimeDelta::seconds(20);

/// After two missed reports, and at least this long, the diagnosis no longer assumes that a worker is alive. A report
/// may be delayed by some seconds, and the clocks of the server's machines differ a little.
const MISSED_HEARTBEATS: TimeDelta = TimeDelta::seconds(4);

/// The known facts when a monitor is judged. They are empty if no Beat sends its runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The Beat that sends its runs.
    pub beat: Option<BeatView>,
    /// How often that Beat has crashed lately.
    pub course: Course,
    /// The broker of its application.
    pub broker: Option<BrokerView>,
    /// The newest run.
    pub stage: Option<StageView>,
    /// The queues of its application.
    pub queues: Vec<QueueView>,
    /// The workers of its application.
    pub workers: Vec<WorkerView>,
    /// The result backend of its application, if a process reports trouble with it.
    pub result_backend: Option<BackendView>,
    /// When the incident of the backend's last outage opened and ended, if it ended lately. No end: the incident is
    /// open.
    pub backend_outage: Option<(DateTime<Utc>, Option<DateTime<Utc>>)>,
    /// Those of these subjects that have an open incident.
    pub open: Vec<PartOf>,
    /// The monitor is a canary: Deadbeat's own probe, not a task of the application.
    pub is_canary: bool,
    /// How long a message may wait.
    pub longest_wait: Option<TimeDelta>,
    /// Queues from which a worker without the SDK receives messages, and since when runs have been missing there. None:
    /// no run is missing yet.
    pub strangers: Vec<(QueueId, Option<DateTime<Utc>>)>,
}

/// The subject whose incident a monitor joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartOf {
    /// The Beat that sends its runs.
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

/// The verdict: which subject has the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The monitor opens its own incident.
    Own(Cause),
    /// The monitor joins the incident of another subject, which has this cause.
    Part(PartOf, Cause),
    /// The evidence names another subject, whose fault may not have been observed. The monitor joins an incident about
    /// that subject, which is opened unless one is open.
    Named(PartOf, Cause),
    /// Another subject must be judged first. Judge the monitor again at that time.
    Wait(DateTime<Utc>),
}

/// The verdict on a message that began more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contested {
    /// At most one execution continues. The run is like any other.
    Settled,
    /// Not known yet. Judge again at that time.
    Wait(DateTime<Utc>),
    /// Two executions are alive, or the message begins again and again.
    Trouble(Cause),
}

/// Waits for the verdict on another subject, which is judged at its deadline. Gives up some time later, because the
/// evaluator may be unable to judge that subject.
fn wait_for(deadline: DateTime<Utc>, now: DateTime<Utc>) -> Option<Blame> {
    (now < deadline + NEXT_SAMPLE).then(|| Blame::Wait(deadline.max(now) + AFTER))
}

impl Evidence {
    /// Evidence that knows only the Beat.
    #[must_use]
    pub fn of_beat(beat: Option<BeatView>) -> Self {
        Self {
            beat,
            ..Self::default()
        }
    }

    /// True if a process of the application dropped events since then. A missing report then proves nothing.
    pub(crate) fn has_lost_reports(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.beat
            .and_then(|beat| beat.lost_at)
            .is_some_and(|lost| lost >= since && !is_to_come(lost, now))
    }

    /// Waits for reports of events from `since` on, which were due by `owed_at`. If a worker could not reach the
    /// server, its SDK delivers the kept reports after the gap.
    ///
    /// The wait lasts until the end of the gap in which the report was due. A starving worker has one gap after
    /// another. So the wait for later gaps ends when the worker's tolerated silence is over.
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

    /// Judges a slot without a report, at its deadline. `early`: how long before the slot Beat may have sent the run.
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
        // The SDK sends a heartbeat after each tick has returned. So a heartbeat after the slot proves that Beat had
        // sent the slot's run.
        if beat.last_seen_at.is_none_or(|seen| seen < due) {
            // A Beat that is down but has a deadline still reports: its clock is wrong, or it sends a storm.
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
        // A Beat that comes back needs a moment until it sends the overdue entries.
        let down_for = beat.patience().unwrap_or(NEXT_SAMPLE) + NEXT_SAMPLE;
        let is_back =
            |back: &DateTime<Utc>| (due..due + down_for).contains(back) && now < *back + NEXT_SAMPLE;
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
            _ if self.is_sample_awaited(due, now) => Blame::Wait(now + AFTER),
            _ if beat.back_at.as_ref().is_some_and(is_back) => Blame::Wait(now + AFTER),
            _ if self.is_broker_just_back(now) => Blame::Wait(now + AFTER),
            _ if beat.send_failed_at.as_ref().is_some_and(since_due) => Blame::Own(Cause::BrokerDown),
            _ if let Some(blame) = self.of_crashes(CRASHES, now) => blame,
            _ if self.has_lost_reports(due - early, now) => Blame::Own(Cause::Unknown),
            // With a wrong clock, Beat sends at other times.
            _ if beat.skewed_since.is_some() => {
                let skew = self.of_skew(|_| false, now);
                skew.unwrap_or(Blame::Own(Cause::Unknown))
            }
            // Beat sends other entries, and it is not known why it did not send this one. Only if a Beat reports its
            // sendings can their absence prove that it sends nothing.
            _ if beat.sent_at.as_ref().is_none_or(since_due) => Blame::Own(Cause::Unknown),
            _ if beat.last_seen_at.as_ref().is_some_and(since_due) => Blame::Own(Cause::BeatStalled),
            _ => Blame::Own(Cause::Unknown),
        }
    }

    /// Judges an entry that Beat puts off at each start, because it forgets its last sending. Soon after each end,
    /// Deadbeat knows whether it was ordered.
    #[must_use]
    pub fn of_put_off(&self, now: DateTime<Utc>) -> Blame {
        self.of_crashes(CRASHES_OF_PUT_OFF, now)
            .unwrap_or(Blame::Own(Cause::ScheduleReset))
    }

    /// Blames the Beat if it has crashed at least `enough` times in a row. If one crash is missing, waits until it is
    /// known whether another one follows.
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
        let Some(since) = broker.down_since else {
            return broker
                .doubt_until
                .filter(|until| now < *until)
                .map(|_| Blame::Wait(now + AFTER));
        };
        if broker.status == Status::Down {
            return Some(Blame::Part(PartOf::Broker(broker.id), Cause::BrokerDown));
        }
        // The process that sampled the broker may have ended, too.
        let alert_at = since + BROKER_DOWN_PATIENCE + NEXT_SAMPLE;
        (alert_at > now).then_some(Blame::Wait(alert_at))
    }

    /// True if the broker has just come back. Beat and the workers reconnect one after the other, and then Beat sends
    /// the overdue entries.
    fn is_broker_just_back(&self, now: DateTime<Utc>) -> bool {
        let back_at = self.broker.and_then(|broker| broker.back_at);
        back_at.is_some_and(|back| (back..back + BROKER_RETURN).contains(&now))
    }

    /// True if a sample of the broker is due soon, and none has come since `since`.
    fn is_sample_awaited(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let seen_at = self.broker.and_then(|broker| broker.seen_at);
        now < since + NEXT_SAMPLE && seen_at.is_some_and(|seen| seen < since + AFTER)
    }
}
