//! The loop that closes runs whose end will never be reported.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::trace::fold;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::time::Clock;
use deadbeat_store::{Store, StoreResult, Tx, with_sources};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Changes, Was};
use crate::operation::duty::Duty;

/// The most runs that one transaction gives up.
const LOST_BATCH: i64 = 500;
/// The pause between two searches for abandoned runs.
const LOST_PAUSE: Duration = Duration::from_secs(60);
/// A worker that has been silent for this long will report nothing more about its runs.
const WORKER_GONE: TimeDelta = TimeDelta::minutes(10);
/// The worker of a run that began longer ago no longer knows the run.
const LONGEST: TimeDelta = TimeDelta::days(7);

/// The loop that closes runs whose end will never be reported: their worker is gone, or they began too long ago. A later report about such a run
/// still overrides this.
pub struct Lost {
    store: Store,
    clock: Arc<dyn Clock>,
    duty: Duty,
}

impl Lost {
    /// Makes the loop.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            duty: Duty::new("lost_runs"),
        }
    }

    /// Returns the duty of the loop.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Closes abandoned runs every minute until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOST_PAUSE) => {}
            }
            let closed = self.close_once().await;
            self.duty.ended(&closed);
            match closed {
                Ok(0) => {}
                Ok(closed) => tracing::info!(closed, "runs whose end was not reported were closed as lost"),
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "abandoned runs could not be closed; retrying")
                }
            }
        }
    }

    /// Closes all runs that are abandoned now, and returns their number. Any number of processes may do so at once.
    ///
    /// # Errors
    /// If the database cannot be reached. The runs already closed stay closed.
    pub async fn close_once(&self) -> StoreResult<u64> {
        let now = self.clock.now();
        let mut closed = 0;
        loop {
            let (gone, began) = (now - WORKER_GONE, now - LONGEST);
            let abandoned =
                deadbeat_store::celery::trace::abandoned(&self.store.reader(), gone, began, LOST_BATCH)
                    .await?;
            let is_last = abandoned.len() < usize::try_from(LOST_BATCH).unwrap_or(usize::MAX);
            if !abandoned.is_empty() {
                let mut tx = self.store.begin().await?;
                closed += give_up(&mut tx, &abandoned, now).await?;
                tx.commit().await?;
            }
            if is_last {
                return Ok(closed);
            }
        }
    }
}

async fn give_up(tx: &mut Tx, abandoned: &[(ProjectId, Uuid)], now: DateTime<Utc>) -> StoreResult<u64> {
    let mut changes = Changes::default();
    for mut stored in deadbeat_store::celery::trace::lock(tx, abandoned).await? {
        let was = Was::of(&stored);
        let began = stored.trace.started_at();
        let why = if began.is_some_and(|began| began < now - LONGEST) {
            "it began over 7 days ago, and its end was not reported"
        } else {
            "its worker is gone, and its end was not reported"
        };
        let given_up = stored.trace.given_up(Uuid::now_v7(), why);
        if was.running.is_some() && fold(&mut stored.trace, &given_up) {
            changes.change(stored, was);
        }
    }
    changes.write(tx).await?;
    // Including runs that the writer has closed in the meantime, and runs whose trace is gone.
    deadbeat_store::celery::trace::forget_open(tx, abandoned).await?;
    Ok(changes.changed.len() as u64)
}
