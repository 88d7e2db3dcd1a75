//! Judges a run that Beat sent, and that no worker has received.

use chrono::{DateTime, Utc};

use super::{AFTER, Blame, Evidence, NEXT_SAMPLE, PartOf, RETURN};
use crate::celery::blame::view::{StageView, WorkerView};
use crate::celery::queue::{NO_WORKER_PATIENCE, REPLACED_WITHIN, UNCONSUMED_PATIENCE};
use crate::celery::worker::stranger::INCIDENT_WITHIN;
use crate::celery::worker::{GHOST_PATIENCE, SKEW_PATIENCE};
use crate::ids::QueueId;
use crate::incident::cause::Cause;
use crate::monitor::status::Status;

impl Evidence {
    /// Judges a run that Beat sent, and that no worker has received.
    pub(super) fn of_sent(&self, stage: &StageView, sent_at: DateTime<Utc>, now: DateTime<Utc>) -> Blame {
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
            // Wait as long as the queue's own rule, because a deployment needs time.
            let mut own = self.workers.iter().filter(|worker| !worker.is_foreign);
            let nobody = own.all(|worker| worker.standing() != Status::Up);
            let left_at = self
                .workers
                .iter()
                .filter(|worker| worker.status == Status::Paused && worker.consumes(name))
                .filter_map(|worker| worker.last_seen_at)
                .max();
            let since = queue.since.unwrap_or(queue.seen_at);
            let alert_at = if nobody {
                since + NO_WORKER_PATIENCE
            } else {
                (since + UNCONSUMED_PATIENCE).max(left_at.map_or(since, |at| at + REPLACED_WITHIN))
            };
            let alert_at = alert_at + NEXT_SAMPLE;
            if alert_at > now {
                return Blame::Wait(alert_at);
            }
        }
        let mut up = 0;
        let mut troubled = None;
        let mut cut_off = None;
        for worker in self.workers.iter().filter(|worker| worker.consumes(name)) {
            match worker.standing() {
                Status::Up if !worker.is_reporting(sent_at, now) => {
                    if let Some(wait) = worker.awaited(sent_at, now) {
                        return wait;
                    }
                }
                // The loop of a starving worker turns seldom. Its connection state then proves nothing.
                Status::Up if worker.load.is_starving() => up += 1,
                // It will receive the message soon, because workers reconnect some seconds after their broker is back.
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
        // Another process reaches the broker and samples it. So the worker is cut off.
        if up == 0
            && let Some(worker) = cut_off
            && !queue.is_some_and(|queue| queue.has_others)
        {
            return Blame::Named(PartOf::Worker(worker.id), Cause::GhostWorker);
        }
        if self.is_sample_awaited(sent_at, now) {
            return Blame::Wait(now + AFTER);
        }
        let Some(queue) = queue.filter(|queue| queue.seen_at >= sent_at + AFTER) else {
            return Blame::Own(Cause::Unknown);
        };
        // If all waiting messages are younger, this message is not among them. Clocks of senders differ slightly.
        let is_consumed = up > 0 || queue.has_others;
        let waits = queue.depth > 0 && queue.oldest_at.is_none_or(|oldest| oldest <= sent_at + AFTER);
        if waits {
            // Messages that a rate limit holds fill the worker's prefetch, and the other messages wait in front of it.
            let consumers = || {
                self.workers
                    .iter()
                    .filter(|worker| worker.consumes(name) && worker.standing() == Status::Up)
            };
            if up > 0 && consumers().all(|worker| worker.limits(stage)) {
                return Blame::Own(Cause::RateLimited);
            }
        }
        // A worker hangs if it could receive a waiting message and does not. Its incident opens soon. A message that it
        // received and has not processed is in no queue.
        let deaf = self
            .workers
            .iter()
            .filter(|worker| {
                worker.consumes(name)
                    && worker.standing() == Status::Up
                    && worker.has_a_free_process()
                    && !worker.load.is_starving()
            })
            .map(|worker| worker.progress_at + GHOST_PATIENCE + NEXT_SAMPLE)
            .min();
        if queue.depth > 0
            && let Some(alert_at) =
                deaf.filter(|alert_at| *alert_at > now && sent_at + GHOST_PATIENCE + NEXT_SAMPLE > now)
        {
            return Blame::Wait(alert_at.min(now + NEXT_SAMPLE));
        }
        if waits {
            return Blame::Own(if is_consumed {
                Cause::QueueSlaBreach
            } else {
                Cause::Unknown
            });
        }
        // A worker without the SDK may have received it. The next sample opens one incident about the queue, and this
        // monitor joins it.
        if let Some((_, missed_since)) = self.strangers.iter().find(|(id, _)| *id == queue.id) {
            return if missed_since.is_none_or(|since| now < since + INCIDENT_WITHIN) {
                Blame::Wait(now + AFTER)
            } else {
                Blame::Own(Cause::WorkerWithoutSdk)
            };
        }
        // If no worker accounts for a message, a dead connection may hold it. The broker will redeliver it, so it is
        // not lost.
        let at_work = self
            .workers
            .iter()
            .filter(|worker| worker.standing() == Status::Up);
        let held: i64 = at_work.map(|worker| worker.unacked + worker.held).sum();
        let unaccounted = self
            .broker
            .and_then(|broker| broker.unacked)
            .is_some_and(|unacked| unacked > held);
        // With clock skew, a worker drops messages with `expires` as too old.
        if let Some(blame) = self.of_skew(|worker| worker.consumes(name), now) {
            return blame;
        }
        // A lost worker may have received it. The broker redelivers unacknowledged messages late, and in any order.
        let may_hold_it = |worker: &&WorkerView| {
            worker.consumes(name)
                && worker.status == Status::Down
                && worker.trouble.is_none()
                && (unaccounted || worker.unacked > 0)
        };
        if let Some(worker) = self.workers.iter().find(may_hold_it) {
            return Blame::Part(PartOf::Worker(worker.id), Cause::WorkerLost);
        }
        // If no known worker consumes the queue, a worker that does not report may have received it.
        Blame::Own(if unaccounted || up == 0 || self.has_lost_reports(sent_at, now) {
            Cause::Unknown
        } else {
            Cause::LostInBroker
        })
    }

    /// The queue from which a worker without the SDK probably received the run: the run was sent there, waits there no
    /// longer, and no reporting worker received it.
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

    /// Judges a message that a worker dropped as too old while a clock is wrong. If neither Beat's clock nor a worker's
    /// clock is wrong, the message had expired.
    pub(super) fn of_expired(&self, stage: &StageView, now: DateTime<Utc>) -> Blame {
        let queue = stage.queue.as_deref();
        let skew = self.of_skew(|worker| queue.is_some_and(|queue| worker.consumes(queue)), now);
        skew.unwrap_or(Blame::Own(Cause::Expired))
    }

    /// Blames clock skew of Beat, or of a worker that may have dropped the message. The skew has an incident, or will
    /// soon have one.
    pub(super) fn of_skew(
        &self,
        may_drop_it: impl Fn(&WorkerView) -> bool,
        now: DateTime<Utc>,
    ) -> Option<Blame> {
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
        // The incident opens with the subject's next report, which may be late.
        let alert_at = since + SKEW_PATIENCE;
        (alert_at + NEXT_SAMPLE > now).then(|| Blame::Wait(alert_at.max(now) + AFTER))
    }
}
