//! Subjects that wait for the result backend: a Beat that cannot send, or a worker that cannot end its tasks.

use chrono::{DateTime, Utc};

use super::{AFTER, Blame, Evidence, PartOf};
use crate::celery::result_backend::LONGEST_WITHOUT_ALERT;
use crate::ids::WorkerId;
use crate::incident::cause::Cause;
use crate::monitor::run::Run;

/// The state of the incident about the result backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Its incident is open.
    Open,
    /// Its incident has ended.
    Over,
}

impl Evidence {
    /// Blames the result backend for a slot that was missed since then: Beat waits for the backend, or so does the
    /// worker that has the run or should receive it.
    pub(super) fn of_result_backend(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> Option<Blame> {
        let backend = self.result_backend.as_ref()?;
        let stage = self.stage.as_ref();
        let is_of_slot = |at: &DateTime<Utc>| *at >= since;
        let sent_at = stage.and_then(|stage| stage.published_at).filter(is_of_slot);
        let received_at = stage.and_then(|stage| stage.received_at).filter(is_of_slot);
        let mut held_up = self
            .workers
            .iter()
            .filter(|worker| backend.holds_up.contains(&worker.id));
        let is_held_up = match (stage, sent_at, received_at) {
            (Some(stage), _, Some(_)) => held_up.any(|worker| Some(&worker.name) == stage.worker.as_ref()),
            (Some(stage), Some(_), None) => {
                held_up.any(|worker| stage.queue.as_deref().is_some_and(|queue| worker.consumes(queue)))
            }
            _ => backend.holds_up_beat,
        };
        is_held_up.then(|| self.of_backend(now)).flatten()
    }

    /// Blames the result backend for a run that continues in a worker whose processes wait for it. The task's body may
    /// have ended long ago.
    pub(super) fn of_held_up(&self, worker: WorkerId, now: DateTime<Utc>) -> Option<Blame> {
        let backend = self.result_backend.as_ref()?;
        backend
            .holds_up
            .contains(&worker)
            .then(|| self.of_backend(now))
            .flatten()
    }

    /// Judges a run whose process was ordered to exit, or that ended because its result could not be stored.
    pub(crate) fn of_aborted(&self, run: &Run, now: DateTime<Utc>) -> Blame {
        let worker = run.detail.worker.as_deref();
        let blame = self.is_troubled(worker).then(|| self.of_backend(now)).flatten();
        // The backend may already answer this worker, but not yet other workers.
        let alerted = self.broker.filter(|_| self.outage_of(run) == Some(Outage::Open));
        let alerted =
            alerted.map(|broker| Blame::Part(PartOf::ResultBackend(broker.id), Cause::ResultBackendDown));
        blame.or(alerted).unwrap_or(Blame::Own(Cause::Failed))
    }

    /// The outage of the result backend in which an aborted run began, if its incident is recent. The run belongs to
    /// that incident, as its monitor did.
    pub(crate) fn outage_of(&self, run: &Run) -> Option<Outage> {
        let (alert_at, over_at) = self.backend_outage?;
        let started_at = run
            .started_at
            .filter(|at| *at >= alert_at - LONGEST_WITHOUT_ALERT)?;
        match over_at {
            None => Some(Outage::Open),
            Some(over_at) => (started_at <= over_at).then_some(Outage::Over),
        }
    }

    /// True if calls of this worker to the result backend wait or fail.
    pub(crate) fn is_troubled(&self, worker: Option<&str>) -> bool {
        let is_named = |id: &WorkerId| {
            self.workers
                .iter()
                .any(|one| Some(one.name.as_str()) == worker && one.id == *id)
        };
        self.result_backend
            .as_ref()
            .is_some_and(|backend| backend.troubled.iter().any(is_named))
    }

    fn of_backend(&self, now: DateTime<Utc>) -> Option<Blame> {
        let backend = self.result_backend.as_ref()?;
        if backend.is_alerted {
            return Some(Blame::Part(
                PartOf::ResultBackend(backend.id),
                Cause::ResultBackendDown,
            ));
        }
        (now < backend.since + LONGEST_WITHOUT_ALERT + AFTER).then_some(Blame::Wait(now + AFTER))
    }
}
