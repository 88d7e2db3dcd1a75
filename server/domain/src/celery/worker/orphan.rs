//! Runs whose owner has ended, and the verdicts on them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::blame::{AFTER, Blame, Evidence, PartOf};
use crate::celery::worker::incarnation::redelivered_by;
use crate::incident::cause::Cause;
use crate::monitor::run::orphan::{Orphan, Orphaned};
use crate::monitor::run::{Outcome, Run, RunStatus};
use crate::monitor::status::Status;

#[cfg(test)]
mod tests;

/// A snapshot must list each run that began longer ago than this. The report of a younger run's start may arrive before
/// the worker's main process knows of the run.
pub const LISTED_WITHIN: TimeDelta = TimeDelta::seconds(10);
/// A run that is no longer listed is decided after this, because another process may still report its end.
pub const UNLISTED_PATIENCE: TimeDelta = TimeDelta::seconds(15);

/// The verdict on an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is no orphan: its owner lives.
    Lives,
    /// Nothing shows whether it still executes. It is judged at its deadline, like any other run.
    Unproved,
    /// Not known yet. Judge again at that time.
    Wait(DateTime<Utc>),
    /// Its end cannot be known: it is closed without an alert.
    Unknown,
    /// It is dead.
    Dead(Blame),
}

impl Evidence {
    /// Judges an open run whose owner seems to have ended.
    #[must_use]
    pub fn of_orphan(&self, run: &Run, orphan: Orphan, now: DateTime<Utc>) -> Fate {
        let name = run.detail.worker.as_deref();
        let worker = self
            .workers
            .iter()
            .find(|worker| Some(worker.name.as_str()) == name);
        match orphan.how {
            Orphaned::Unheard => return Fate::Unknown,
            Orphaned::Unlisted => match worker {
                Some(worker) if worker.incarnation == run.detail.incarnation => {
                    if !worker.connected {
                        // Its loop does not turn, so it does not know which runs its processes execute.
                        return Fate::Wait(now + AFTER);
                    }
                    let (Some(running), Some(id)) = (&worker.running, run.run_id) else {
                        return Fate::Unproved;
                    };
                    if running.contains(&id) {
                        return Fate::Lives;
                    }
                    // The run may have ended, and the report of its end may be lost.
                    if self.has_lost_reports(run.started_at.unwrap_or(orphan.since), now) {
                        return Fate::Unproved;
                    }
                }
                // Another incarnation of the name has reported since then. This incarnation will soon report, or end.
                Some(_) if now < orphan.since + UNLISTED_PATIENCE * 4 => return Fate::Wait(now + AFTER),
                _ => return Fate::Unproved,
            },
            Orphaned::Ended => {
                let is_live = |id| self.workers.iter().any(|worker| worker.live.contains(&id));
                if run.detail.incarnation.is_some_and(is_live) {
                    return Fate::Lives;
                }
                if let Some(worker) = worker
                    && worker.status == Status::Down
                    && worker.trouble.is_none()
                {
                    return Fate::Dead(Blame::Part(PartOf::Worker(worker.id), Cause::WorkerLost));
                }
            }
        }
        if run.detail.acks_late {
            let timeout = self.broker.and_then(|broker| broker.visibility_timeout);
            let until = redelivered_by(orphan.since, timeout);
            if now < until {
                return Fate::Wait(until);
            }
        }
        Fate::Dead(Blame::Own(Cause::WorkerKilled))
    }
}

/// The result of judging an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is no orphan, or nothing shows that it is dead. It is judged like any other run.
    None,
    /// It was closed, or is judged again later.
    Later,
    /// It is dead, and was closed.
    Dead(Blame),
}

/// Judges an open run that is overdue. `whole`: when it is over its longest run in any case.
pub fn settle(run: &mut Run, evidence: &Evidence, whole: DateTime<Utc>, now: DateTime<Utc>) -> Settled {
    let Some(orphan) = run.orphan else {
        return Settled::None;
    };
    match evidence.of_orphan(run, orphan, now) {
        fate @ (Fate::Lives | Fate::Unproved) => {
            run.orphan = run.orphan.filter(|_| fate == Fate::Unproved);
            if whole <= now {
                return Settled::None;
            }
            run.deadline_at = Some(whole);
            Settled::Later
        }
        // The monitor's slots are judged meanwhile.
        Fate::Wait(until) => {
            run.deadline_at = Some(until.max(now + AFTER));
            Settled::Later
        }
        Fate::Unknown => {
            close(run);
            Settled::Later
        }
        Fate::Dead(blame) => {
            close(run);
            run.detail.outcome = Some(Outcome::Lost);
            Settled::Dead(blame)
        }
    }
}

fn close(run: &mut Run) {
    run.status = RunStatus::Overrun;
    run.deadline_at = None;
}
