//! Periodic checks beside the deadlines: brokers without samples, runs that no worker received, lost hosts.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use deadbeat_store::{StoreResult, with_sources};

use super::{BATCH, Evaluator};
use crate::celery::trace::unbegun;
use crate::celery::{broker, host, result_backend};
use crate::incident;

/// Microseconds between two checks for brokers without samples.
const GIVE_UP_MICROS: i64 = 60_000_000;

/// Microseconds between two checks for runs that no worker received.
const UNBEGUN_MICROS: i64 = 5_000_000;

/// Microseconds between two checks of lost hosts.
const HOSTS_MICROS: i64 = 1_000_000;

impl Evaluator {
    /// Ends the incidents of brokers and queues that no process samples any more: once a minute, because that is not
    /// urgent.
    pub(super) async fn give_up_unsampled(&self, now: DateTime<Utc>) {
        let before = self.gave_up_at.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < GIVE_UP_MICROS {
            return;
        }
        self.gave_up_at.store(now.timestamp_micros(), Ordering::Relaxed);
        let done = self.try_to_give_up_unsampled(now).await;
        self.unsampled_duty.ended(&done);
        match done {
            Ok(0) => {}
            Ok(given_up) => {
                tracing::info!(
                    given_up,
                    "incidents of brokers and queues that no process samples any more ended"
                );
                self.outbox_bell.notify_one();
            }
            // Do not fail the sweep: nothing else depends on this.
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "incidents of brokers and queues without samples could not be ended")
            }
        }
    }

    /// Every five seconds, ends runs whose message was lost: runs of the same entry that were published later have
    /// begun.
    pub(super) async fn find_unbegun(&self, now: DateTime<Utc>) {
        let before = self.unbegun_at.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < UNBEGUN_MICROS {
            return;
        }
        self.unbegun_at.store(now.timestamp_micros(), Ordering::Relaxed);
        let done = unbegun::judge_once(&self.store, &self.site, now).await;
        self.unbegun_duty.ended(&done);
        match done {
            Ok((0, _)) => {}
            Ok((lost, down)) => {
                tracing::info!(lost, down, "messages of runs are lost");
                self.outbox_bell.notify_one();
            }
            // Do not fail the sweep: nothing else depends on this.
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "runs that no worker received could not be checked")
            }
        }
    }

    /// Checks every second which lost hosts are back.
    pub(super) async fn judge_hosts(&self, now: DateTime<Utc>) {
        let before = self.hosts_at.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < HOSTS_MICROS {
            return;
        }
        self.hosts_at.store(now.timestamp_micros(), Ordering::Relaxed);
        let after = *self.hosts_after.lock().unwrap_or_else(PoisonError::into_inner);
        let done = host::judge_once(&self.store, &self.site, now, after).await;
        self.hosts_duty.ended(&done);
        match done {
            Ok((over, last)) => {
                *self.hosts_after.lock().unwrap_or_else(PoisonError::into_inner) = last;
                if over > 0 {
                    tracing::info!(over, "hosts are back, or their work is done elsewhere");
                    self.outbox_bell.notify_one();
                }
            }
            // Do not fail the sweep: nothing else depends on this.
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "lost hosts could not be checked")
            }
        }
    }

    async fn try_to_give_up_unsampled(&self, now: DateTime<Utc>) -> StoreResult<usize> {
        let mut tx = self.store.begin().await?;
        let spells = self.spells(&mut tx, now).await?;
        let given_up = broker::give_up_unsampled(&mut tx, &self.site, now, &spells, BATCH).await?
            // Their members may have been deleted, which no event reports.
            + incident::settle_inferred(&mut tx, &self.site, None, now).await?;
        tx.commit().await?;
        Ok(given_up + result_backend::settle_all(&self.store, &self.site, now, BATCH).await?)
    }
}
