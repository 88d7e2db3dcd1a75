//! Finds the subject of a verdict: one fault is one incident, even if the fault itself was not observed.
//!
//! The verdict on a monitor may name another subject: the broker that refused the message, the queue in which the
//! message waits, or the blocked worker. All monitors whose verdicts name the same subject are members of one incident
//! about that subject. Only this file decides which subject that is.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::blame::view::{StageView, WorkerView};
use crate::celery::blame::{Blame, Evidence, NEXT_SAMPLE, PartOf};
use crate::celery::queue::LONGEST_WAIT;
use crate::incident::cause::Cause;
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

impl Evidence {
    /// Finds the subject of a verdict on a slot that was due at `since`. Also decides whether a canary may wait longer.
    pub(crate) fn fold(&self, blame: Blame, since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Blame {
        let Blame::Own(cause) = blame else {
            return blame;
        };
        let stage = self.stage.as_ref().filter(|stage| is_of(stage, since));
        let cause = stage.map_or(cause, |stage| self.starved(cause, stage, now));
        let subjects = self.subjects(cause, stage, now);
        // An open incident about any of these subjects explains the verdict.
        if let Some(open) = subjects.iter().find(|subject| self.open.contains(subject)) {
            return Blame::Named(*open, cause);
        }
        if self.is_canary {
            if let Some(explained) = self.explained(stage) {
                return Blame::Part(explained, cause);
            }
            if let Some(until) = self.canary_waits_until(cause, stage).filter(|until| *until > now) {
                return Blame::Wait(until.min(now + NEXT_SAMPLE));
            }
        }
        match subjects.first() {
            Some(subject) => Blame::Named(*subject, cause),
            None => Blame::Own(cause),
        }
    }

    /// Judges an overlong run. It may be the run that blocks its worker, which already has an incident. Or its worker
    /// starves.
    pub(crate) fn fold_overrun(&self, blame: Blame, worker: Option<&WorkerView>) -> Blame {
        let seen_by_server = worker
            .filter(|worker| !worker.has_a_free_process())
            .map(|worker| PartOf::Worker(worker.id))
            .filter(|subject| self.open.contains(subject));
        match (blame, seen_by_server) {
            (Blame::Own(Cause::Overrun), Some(subject)) => Blame::Named(subject, Cause::Overrun),
            (Blame::Own(Cause::Overrun), None) => match worker.filter(|worker| worker.load.is_starving()) {
                Some(worker) => Blame::Named(PartOf::Worker(worker.id), Cause::HostOverloaded),
                None => blame,
            },
            _ => blame,
        }
    }

    /// The subjects that may have the fault, the likeliest first. Empty: the monitor itself.
    fn subjects(&self, cause: Cause, stage: Option<&StageView>, now: DateTime<Utc>) -> Vec<PartOf> {
        match cause {
            Cause::BrokerDown => self
                .broker
                .iter()
                .map(|broker| PartOf::Broker(broker.id))
                .collect(),
            Cause::BeatStalled => self.beat.iter().map(|_| PartOf::Beat).collect(),
            Cause::QueueSlaBreach => stage.map_or(Vec::new(), |stage| self.of_waiting(stage, now)),
            Cause::HostOverloaded => stage.map_or(Vec::new(), |stage| self.of_overload(stage, now)),
            Cause::RateLimited => {
                let limits = |worker: &&WorkerView| stage.is_some_and(|stage| worker.limits(stage));
                let limiting = self.workers.iter().filter(limits);
                limiting.map(|worker| PartOf::Worker(worker.id)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A message waits in a queue, or inside a worker that received it from there. If the only worker has made no
    /// progress for half of that wait, the worker is blocked. Otherwise the queue gets more work than its workers can
    /// do.
    fn of_waiting(&self, stage: &StageView, now: DateTime<Utc>) -> Vec<PartOf> {
        let Some(name) = stage.queue.as_deref() else {
            return Vec::new();
        };
        let queue = self.queues.iter().find(|queue| queue.name == name);
        let queue = queue.map(|queue| PartOf::Queue(queue.id));
        let workers: Vec<&WorkerView> = self
            .workers
            .iter()
            .filter(|worker| worker.consumes(name) && worker.standing() == Status::Up)
            .collect();
        let waits_since = stage.published_at.or(stage.received_at);
        let is_blocked = |worker: &WorkerView| {
            !worker.has_a_free_process()
                && waits_since.is_some_and(|since| now - worker.progress_at >= (now - since) / 2)
        };
        let worker = match workers.as_slice() {
            [one] => Some((PartOf::Worker(one.id), is_blocked(one))),
            _ => None,
        };
        match worker {
            Some((worker, true)) => [Some(worker), queue].into_iter().flatten().collect(),
            Some((worker, false)) => queue.into_iter().chain([worker]).collect(),
            None => queue
                .into_iter()
                .chain(workers.iter().map(|worker| PartOf::Worker(worker.id)))
                .collect(),
        }
    }

    /// The open incident about a part on the canary's way. The canary then reports nothing else.
    fn explained(&self, stage: Option<&StageView>) -> Option<PartOf> {
        let queue = stage.and_then(|stage| stage.queue.as_deref());
        let is_on_its_way = |part: &&PartOf| match **part {
            PartOf::Beat | PartOf::Broker(_) => true,
            // Monitors that wait for the backend have joined its incident before this point.
            PartOf::ResultBackend(_) => false,
            PartOf::Queue(id) => self
                .queues
                .iter()
                .any(|one| one.id == id && Some(one.name.as_str()) == queue),
            PartOf::Worker(id) => self
                .workers
                .iter()
                .any(|one| one.id == id && queue.is_some_and(|queue| one.consumes(queue))),
        };
        self.open.iter().find(is_on_its_way).copied()
    }

    /// A canary behind other messages may wait as long as any message. A slow queue is the queue's fault, not the
    /// canary's.
    fn canary_waits_until(&self, cause: Cause, stage: Option<&StageView>) -> Option<DateTime<Utc>> {
        let since = stage.and_then(|stage| stage.published_at.or(stage.received_at));
        let waits = match cause {
            Cause::QueueSlaBreach | Cause::PrefetchStarvation | Cause::HostOverloaded => true,
            // The message may be on its way back from a stopped worker, behind busy workers that make progress.
            Cause::Unknown => {
                let queue = stage.and_then(|stage| stage.queue.as_deref());
                self.workers.iter().any(|worker| {
                    worker.standing() == Status::Up
                        && !worker.has_a_free_process()
                        && queue.is_some_and(|queue| worker.consumes(queue))
                        && since.is_some_and(|since| worker.progress_at >= since)
                })
            }
            _ => false,
        };
        let longest: TimeDelta = self.longest_wait.unwrap_or(LONGEST_WAIT);
        since.filter(|_| waits).map(|since| since + longest)
    }
}

/// True if this is the run of the missed slot.
fn is_of(stage: &StageView, since: Option<DateTime<Utc>>) -> bool {
    let seen_by_server = stage.published_at.max(stage.received_at);
    since.is_none_or(|since| seen_by_server.is_some_and(|at| at >= since))
}
