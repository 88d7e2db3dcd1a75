//! Retries the signals that were set aside, at a bounded pace. It runs beside the lane, so that a slow signal does not delay others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use deadbeat_store::StoreError;
use deadbeat_store::monitor::Held;
use tokio_util::sync::CancellationToken;

use super::commit::{Committer, Fate, Place};
use super::{ALONE, Writer};
use crate::monitor::signal::incoming::Address;
use crate::monitor::signal::ingest::IngestCounters;
use crate::monitor::signal::spool::{Aside, Spool, SpoolError};
use crate::operation::lane::{Suspects, alone};

/// The pause before the next round after a round that wrote nothing.
const PAUSE: Duration = Duration::from_millis(250);
/// The most signals that one round tries, each of another address.
const ROUND: usize = 64;
/// The wait between two attempts for an address, after its first failure and at most. A lock may be released at any time, so its wait does not grow.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// Retries the signals that one lane's spool has set aside.
pub(super) struct Retries {
    committer: Committer,
    spool: Spool,
    figures: Arc<IngestCounters>,
    suspects: Suspects<Address>,
    /// The addresses that failed, with their next attempt and the wait after it.
    failed: HashMap<Address, (Instant, Duration)>,
}

impl Writer {
    /// Returns the retries for this lane's spool, if the lane has one.
    pub(super) fn retries(&self) -> Option<Retries> {
        Some(Retries {
            committer: self.committer.another(),
            spool: self.spool.clone()?,
            figures: Arc::clone(&self.figures),
            suspects: self.suspects.clone(),
            failed: HashMap::new(),
        })
    }
}

impl Retries {
    /// Retries until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut has_written = false;
        loop {
            if !has_written {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            has_written = false;
            if self.spool.aside() == 0 {
                self.failed.clear();
                continue;
            }
            // A stop interrupts the round. A signal that is being written keeps its name, and the next process looks that name up.
            tokio::select! {
                () = stop.cancelled() => return,
                done = self.round() => match done {
                    Ok(written) => has_written = written > 0,
                    Err(error) => tracing::error!(%error, "the signals that are set aside cannot be read"),
                }
            }
        }
    }

    /// Tries the oldest signal of each address that is due. Returns the number of written signals.
    async fn round(&mut self) -> Result<usize, SpoolError> {
        let mut written = 0;
        let now = Instant::now();
        let oldest = self.spool.oldest_aside();
        let waiting: std::collections::HashSet<&Address> =
            oldest.iter().map(|(address, _)| address).collect();
        self.failed.retain(|address, _| waiting.contains(address));
        let is_due = |address: &Address| self.failed.get(address).is_none_or(|(due, _)| *due <= now);
        let mut due: Vec<(Address, u64)> = oldest
            .into_iter()
            .filter(|(address, _)| is_due(address))
            .collect();
        // The address that has waited longest comes first, so that addresses that use their full time do not starve the others.
        due.sort_unstable_by_key(|(address, place)| (self.failed.get(address).map(|(due, _)| *due), *place));
        due.truncate(ROUND);
        for (address, place) in due {
            let Some(aside) = self.spool.read_aside(place).await? else {
                continue;
            };
            // Without this, a panic would also end the lane.
            let Ok(tried) = alone(self.write(&aside)).await else {
                self.figures.panicked.fetch_add(1, Ordering::Relaxed);
                tracing::error!("a signal that was set aside makes its writer panic; it stays aside");
                self.wait(address, false);
                continue;
            };
            match tried {
                Ok(true) => {
                    self.suspects.forgive(std::iter::once(&address));
                    written += 1;
                    self.failed.remove(&address);
                    self.spool.forget_aside(&[&aside]).await?;
                    self.forget_name(&aside).await;
                }
                Ok(false) => self.wait(address, false),
                // The database cannot be reached, which says nothing about this signal.
                Err(error) if error.is_unavailable() && !error.is_timed_out() => return Ok(written),
                Err(error) => {
                    tracing::warn!(%error, "a signal that was set aside still cannot be written");
                    self.wait(address, error.is_timed_out());
                }
            }
        }
        Ok(written)
    }

    fn wait(&mut self, address: Address, is_timed_out: bool) {
        let wait = next_wait(self.failed.get(&address).map(|(_, wait)| *wait), is_timed_out);
        self.failed.insert(address, (Instant::now() + wait, wait));
    }

    /// Writes one signal under its own name. Returns false if its monitor's row cannot be read.
    async fn write(&mut self, aside: &Aside) -> Result<bool, StoreError> {
        let mut tx = self.committer.store.begin().await?;
        if deadbeat_store::operation::writer::lock_position(&mut tx, aside.name).await? > 0 {
            return Ok(true);
        }
        deadbeat_store::operation::writer::limit_statements(&mut tx, ALONE).await?;
        let signals = [&aside.incoming];
        let taken = self.committer.take(tx, &signals, Held::Wait).await?;
        if !taken.can_be_written().all(|can| can) {
            return Ok(false);
        }
        let place = Place {
            writer: aside.name,
            number: 1,
            is_replay: true,
        };
        for fate in self.committer.write(taken, &signals, Some(place)).await? {
            if let Fate::Answered(accepted) = fate {
                self.figures.count(accepted);
            }
        }
        Ok(true)
    }

    /// Deletes the signal's row in the table `writer`, because the file no longer has the signal. A row that stays after an error is harmless.
    async fn forget_name(&self, aside: &Aside) {
        let forgotten = async {
            let mut tx = self.committer.store.begin().await?;
            deadbeat_store::operation::writer::forget(&mut tx, aside.name).await?;
            tx.commit().await
        };
        if let Err(error) = forgotten.await {
            tracing::debug!(%error, "the row of a written signal in the table writer could not be deleted");
        }
    }
}

/// Returns how long an address waits after a failed attempt.
fn next_wait(before: Option<Duration>, is_timed_out: bool) -> Duration {
    match before {
        Some(before) if !is_timed_out => (before * 2).min(LONGEST),
        _ => FIRST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_refused_waits_ever_longer_and_one_whose_row_is_locked_does_not() {
        let after =
            |is_timed_out: bool| (0..20).fold(None, |before, _| Some(next_wait(before, is_timed_out)));

        assert_eq!(after(false), Some(LONGEST));
        assert_eq!(after(true), Some(FIRST));
        assert_eq!(next_wait(Some(LONGEST), true), FIRST);
    }
}
