//! Judges a run that a worker has received, and that does not begin or does not end.

use chrono::{DateTime, Utc};

use super::{AFTER, Blame, Contested, Evidence, NEXT_SAMPLE, PartOf, wait_for};
use crate::celery::blame::view::StageView;
use crate::celery::worker::GHOST_PATIENCE;
use crate::incident::cause::Cause;
use crate::monitor::run::{CONTEST_PATIENCE, Contest, Run, pairing};
use crate::monitor::status::Status;

impl Evidence {
    /// Judges a run that a worker received and has not begun.
    pub(super) fn of_received(
        &self,
        stage: &StageView,
        received_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Blame {
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
            // A worker that stops gives unbegun messages back.
            Status::Paused | Status::New => return self.of_sent(stage, received_at, now),
            Status::Up => {}
        }
        // If several workers have this name, the start of the younger worker proves nothing.
        if worker.live.len() < 2 && worker.started_at.is_some_and(|started| started > received_at) {
            return Blame::Own(Cause::WorkerLost);
        }
        if !worker.is_reporting(received_at, now) {
            return worker
                .awaited(received_at, now)
                .unwrap_or(Blame::Own(Cause::Unknown));
        }
        if worker.limits(stage) {
            return Blame::Own(Cause::RateLimited);
        }
        // A worker checks `expires` again before it begins a message, and does not report a canary that it drops then.
        // If all its other messages have begun, it has dropped this one. With a wrong clock, it may have done so too
        // early.
        let has_begun_all = worker.reserved <= worker.active;
        if has_begun_all && let Some(blame) = self.of_skew(|other| other.id == worker.id, now) {
            return blame;
        }
        if worker.has_a_free_process() {
            // The report of the start may still arrive.
            if (received_at..received_at + AFTER).contains(&now) {
                return Blame::Wait(received_at + AFTER);
            }
            // Nothing keeps the worker from beginning. So it hangs, and its incident opens soon. Or it waits for the
            // message's ETA. A worker that executes other tasks for longer does not hang.
            let got_on_at = worker.progress_at.min(received_at + GHOST_PATIENCE);
            let alert_at = got_on_at + GHOST_PATIENCE + NEXT_SAMPLE;
            let may_hang = worker.held == 0 && worker.reserved > worker.active && !worker.load.is_starving();
            return if may_hang && alert_at > now {
                Blame::Wait(alert_at)
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

    /// Judges a run that is open past its deadline.
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
        // A run with a known incarnation is decided when that incarnation ends. If two workers have one name, the start
        // of the younger worker proves nothing.
        let is_followed = run.detail.incarnation.is_some() && worker.incarnation.is_some();
        if !is_followed && worker.started_at.is_some_and(|started| started > started_at) {
            return Blame::Own(Cause::WorkerLost);
        }
        if let Some(blame) = self.of_gap(started_at, run.deadline_at.unwrap_or(now), now) {
            return blame;
        }
        if !worker.is_reporting(started_at + AFTER, now) {
            return worker
                .deadline_at
                .and_then(|deadline| wait_for(deadline, now))
                .unwrap_or(Blame::Own(Cause::Overrun));
        }
        let is_gone = match (&worker.running, run.run_id) {
            // The run may have ended, and the report of its end may be lost.
            _ if is_followed && worker.incarnation != run.detail.incarnation => false,
            (Some(running), Some(id)) => !running.contains(&id) && !self.has_lost_reports(started_at, now),
            _ => false,
        };
        // Between two attempts no process executes it, so none was killed.
        Blame::Own(if is_gone && run.attempts > 0 {
            Cause::WorkerKilled
        } else {
            Cause::Overrun
        })
    }

    /// Judges a message that began again, by the number of its executions that are alive.
    #[must_use]
    pub fn of_contested(&self, run: &Run, now: DateTime<Utc>) -> Contested {
        if run.contest == Some(Contest::Repeated) {
            return Contested::Trouble(Cause::DuplicateRun);
        }
        let (Some(id), Some(deadline)) = (run.run_id, run.deadline_at) else {
            return Contested::Settled;
        };
        // A worker's list of runs counts only if the worker has reported since the newest execution began, or since
        // another execution ended.
        let changed_at = match run.contest {
            Some(Contest::Ended) => pairing::ended_at(run),
            _ => None,
        };
        let asked_at = changed_at.unwrap_or(deadline - CONTEST_PATIENCE) + AFTER;
        let mut alive = 0;
        for worker in self
            .workers
            .iter()
            .filter(|worker| worker.standing() == Status::Up)
        {
            let Some(running) = &worker.running else { continue };
            if !worker.has_reported_since(asked_at) {
                if now < deadline + NEXT_SAMPLE {
                    return Contested::Wait(now + AFTER);
                }
                // A report from before that time proves nothing about now.
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
