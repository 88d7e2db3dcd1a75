//! A starving worker: it lives, but gets too little of its host's CPUs. Its runs are late, and its reports may be late.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Blame, Evidence, MISSED_HEARTBEATS, NEXT_SAMPLE, PartOf, wait_for};
use crate::celery::blame::view::{StageView, WorkerView};
use crate::incident::cause::Cause;
use crate::monitor::status::Status;

/// A gap in a worker's reports that ended within this time still counts as the worker's present state.
const LATE_LATELY: TimeDelta = TimeDelta::seconds(60);

impl WorkerView {
    /// Waits for the worker's next report, about a run that it may have received since then. None: the wait is over.
    ///
    /// A starving worker reports now and then, and each report moves its deadline on. So the wait ends after the
    /// silence that is tolerated of the worker. The run is then judged although the worker lives.
    pub(super) fn awaited(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> Option<Blame> {
        let deadline = self.deadline_at?;
        let is_over = self
            .patience()
            .is_some_and(|patience| now >= since + patience + NEXT_SAMPLE);
        if self.has_reported_since(since) && is_over {
            return None;
        }
        wait_for(deadline, now)
    }

    /// How long it may be silent.
    pub(super) fn patience(&self) -> Option<TimeDelta> {
        Some(self.deadline_at? - self.last_seen_at?)
    }

    /// True if its host is overloaded and this slows the worker down: the worker waits for a CPU, or its reports are
    /// late or were late a moment ago.
    fn starves(&self, now: DateTime<Utc>) -> bool {
        let silence = (self.period * 2).max(MISSED_HEARTBEATS);
        let is_late = self.last_seen_at.is_some_and(|seen| now > seen + silence);
        let was_late = self.gap.is_some_and(|(_, to)| now - to <= LATE_LATELY);
        self.load.is_starving() || (self.load.is_overload() && (is_late || was_late))
    }
}

impl Evidence {
    /// Changes a verdict on this run if all workers that could begin it starve.
    ///
    /// A busy worker that starves is slow because it lacks CPU time. A starving worker may not yet have reported a
    /// message that it received, so the message is not lost.
    pub(crate) fn starved(&self, cause: Cause, stage: &StageView, now: DateTime<Utc>) -> Cause {
        let explains = matches!(
            cause,
            Cause::Unknown | Cause::QueueSlaBreach | Cause::PrefetchStarvation | Cause::LostInBroker
        );
        if explains && !self.starving(stage, now).is_empty() {
            Cause::HostOverloaded
        } else if cause == Cause::LostInBroker
            && self.may_begin(stage).iter().any(|worker| worker.starves(now))
        {
            Cause::Unknown
        } else {
            cause
        }
    }

    /// The subjects of an overload: first the starving workers that keep this run waiting, then other starving workers
    /// on the same machines.
    pub(crate) fn of_overload(&self, stage: &StageView, now: DateTime<Utc>) -> Vec<PartOf> {
        let starving = self.starving(stage, now);
        let beside = self.workers.iter().filter(|other| {
            other.starves(now)
                && starving
                    .iter()
                    .any(|worker| worker.id != other.id && worker.load.is_beside(&other.load))
        });
        let own = starving.iter().copied();
        own.chain(beside)
            .map(|worker| PartOf::Worker(worker.id))
            .collect()
    }

    /// The workers that could begin this run, if all of them starve.
    fn starving(&self, stage: &StageView, now: DateTime<Utc>) -> Vec<&WorkerView> {
        let workers = self.may_begin(stage);
        // Once an incident is open, a moment in which the worker gets a CPU does not change the cause.
        let is_alerted =
            |worker: &WorkerView| worker.load.is_overload() && self.open.contains(&PartOf::Worker(worker.id));
        if workers
            .iter()
            .all(|worker| worker.starves(now) || is_alerted(worker))
        {
            workers
        } else {
            Vec::new()
        }
    }

    /// The workers that could begin this run: the one that received it, else those that consume its queue.
    fn may_begin(&self, stage: &StageView) -> Vec<&WorkerView> {
        let up = || {
            self.workers
                .iter()
                .filter(|worker| worker.standing() == Status::Up)
        };
        let holder = stage.received_at.and(stage.worker.as_deref());
        let held: Vec<&WorkerView> = up()
            .filter(|worker| Some(worker.name.as_str()) == holder)
            .collect();
        if !held.is_empty() {
            return held;
        }
        let queue = stage.queue.as_deref();
        up().filter(|worker| queue.is_some_and(|queue| worker.consumes(queue)))
            .collect()
    }
}
