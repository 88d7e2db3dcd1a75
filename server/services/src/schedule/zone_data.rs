//! Moves stored due times to newer time zone data.
//!
//! If a process starts with a newer release than the database has, it recomputes the due times before it judges anything. It works in batches, in the
//! order of ids. Each transaction also records its progress, so that a killed process loses nothing. A process with an older release changes nothing:
//! during an upgrade the newest data win.

use std::sync::Arc;
use std::time::Duration;

use deadbeat_domain::monitor::transition::on_zone_data_change;
use deadbeat_domain::schedule::zone;
use deadbeat_domain::schedule::zone::data::Release;
use deadbeat_domain::time::Clock;
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::schedule::zone_data::Progress;
use deadbeat_store::{Store, StoreResult, with_sources};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::operation::duty::Duty;

/// The number of monitors in one transaction.
const BATCH: i64 = 500;
/// After this many failures in a row, leave the rest to the next start.
const TRIES: u32 = 10;
/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// The result of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// All due times match this process's release, or a newer one.
    All,
    /// More monitors remain. The number is that of the moved due times.
    Some(usize),
}

/// Moves stored due times to the release of this process.
pub struct ZoneData {
    store: Store,
    clock: Arc<dyn Clock>,
    release: Release,
    duty: Duty,
}

impl ZoneData {
    /// Makes the move to the zone data of this process.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self::of_release(store, clock, zone::data::release().clone())
    }

    /// Makes the move to a given release.
    #[must_use]
    pub fn of_release(store: Store, clock: Arc<dyn Clock>, release: Release) -> Self {
        Self {
            store,
            clock,
            release,
            duty: Duty::new("zone_data"),
        }
    }

    /// Returns the duty of the move.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Moves all due times. Returns when that is done, at `stop`, or after [`TRIES`] failures in a row, because silence must still be judged. Calls
    /// `is_alive` after each batch.
    pub async fn run(&self, stop: &CancellationToken, is_alive: impl Fn()) {
        let (mut moved, mut failed) = (0, 0);
        while !stop.is_cancelled() && failed < TRIES {
            is_alive();
            let done = self.move_once().await;
            self.duty.ended(&done);
            match done {
                Ok(Moved::All) => {
                    if moved > 0 {
                        tracing::info!(moved, release = %self.release, "due times follow the newer time zone data");
                    }
                    return;
                }
                Ok(Moved::Some(more)) => {
                    moved += more;
                    failed = 0;
                }
                Err(error) => {
                    failed += 1;
                    tracing::warn!(
                        ?error,
                        "due times could not be moved to the newer time zone data yet"
                    );
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                }
            }
        }
    }

    /// Moves the next batch.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn move_once(&self) -> StoreResult<Moved> {
        let mut tx = self.store.begin().await?;
        let mut progress = deadbeat_store::schedule::zone_data::lock(&mut tx).await?;
        let is_newer = |to: &str| Release::parse(to).is_some_and(|to| to > self.release);
        // A process with newer data has begun to move them, and will finish.
        if is_at_least(&progress.release, &self.release)
            || progress.moving_to.as_deref().is_some_and(is_newer)
        {
            return Ok(Moved::All);
        }
        if progress.moving_to.as_deref() != Some(self.release.as_str()) {
            progress.moving_to = Some(self.release.to_string());
            progress.done_upto = None;
        }
        let after = progress.done_upto.unwrap_or(Uuid::nil());
        let locked = deadbeat_store::monitor::lock_after(&mut tx, after, BATCH).await?;
        // Include unreadable rows, so that the next batch begins after them.
        let last = locked
            .iter()
            .map(|row| row.as_ref().map_or_else(|bad| bad.id, |monitor| monitor.id).0)
            .max();
        let mut monitors: Vec<Monitor> = Vec::new();
        for row in locked {
            match row {
                Ok(monitor) => monitors.push(monitor),
                Err(bad) => {
                    tracing::error!(monitor.id = %bad.id, error = %with_sources(&bad.error), "a monitor cannot be read")
                }
            }
        }
        let moved = self.move_dues(&mut tx, &mut monitors).await?;
        match last {
            Some(last) => progress.done_upto = Some(last),
            None => {
                let release = progress
                    .moving_to
                    .take()
                    .unwrap_or_else(|| self.release.to_string());
                progress = Progress {
                    release,
                    moving_to: None,
                    done_upto: None,
                };
            }
        }
        deadbeat_store::schedule::zone_data::update(&mut tx, &progress).await?;
        tx.commit().await?;
        Ok(if last.is_none() {
            Moved::All
        } else {
            Moved::Some(moved)
        })
    }

    async fn move_dues(&self, tx: &mut deadbeat_store::Tx, monitors: &mut [Monitor]) -> StoreResult<usize> {
        // The deadline depends on open runs.
        deadbeat_store::monitor::run::load_into(tx, monitors, &[]).await?;
        let now = self.clock.now();
        let mut changed = Vec::new();
        for monitor in monitors.iter_mut() {
            if on_zone_data_change(&mut monitor.state, now) {
                changed.push(&*monitor);
            }
        }
        if changed.is_empty() {
            return Ok(0);
        }
        let batch = Batch {
            monitors: changed.iter().map(|monitor| monitor.changed()).collect(),
            moves_check: true,
            ..Batch::default()
        };
        deadbeat_store::monitor::batch::write(tx, &batch).await?;
        Ok(changed.len())
    }
}

/// An unreadable release counts as older than any other, so its due times are recomputed.
fn is_at_least(stored: &str, release: &Release) -> bool {
    Release::parse(stored).is_some_and(|stored| stored >= *release)
}
