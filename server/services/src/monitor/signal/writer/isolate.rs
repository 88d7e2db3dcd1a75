//! Finds the signals of a failed batch that cannot be written, and writes all others.
//!
//! It retries a failed batch in parts, and splits a part that fails again. One bad signal among 512 therefore costs some twenty short transactions,
//! and not one for each signal. Otherwise a client whose signals the database refuses would cost the lane 512 commits each time.

use std::collections::{HashSet, VecDeque};

use deadbeat_store::with_sources;

use super::{ALONE, Failed, WaitingSignal, Writer};
use crate::monitor::signal::incoming::Address;

/// The number of parts of a failed batch. With 16 parts a batch is down to single signals in three steps; with two parts that would take nine. Each
/// step with a signal that times out takes [`ALONE`].
const PARTS: usize = 16;
/// After this many timeouts in a row, the database is slow and the signals are not at fault. This is more than the steps down to a single signal.
const SLOW: usize = 4;

/// Returns how many signals each part of this many signals has: at least one.
pub(super) fn part_of(signals: usize) -> usize {
    signals.div_ceil(PARTS).max(1)
}

/// Splits a failed batch into parts, in the order of the signals.
fn parts(batch: Vec<WaitingSignal>) -> Vec<Vec<WaitingSignal>> {
    let size = part_of(batch.len());
    let mut parts = Vec::with_capacity(PARTS);
    let mut rest = batch.into_iter();
    loop {
        let part: Vec<WaitingSignal> = rest.by_ref().take(size).collect();
        if part.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}

impl Writer {
    /// Retries a failed batch in parts. Once a signal goes to the spool, everything behind it goes there, too.
    pub(super) async fn isolate(&mut self, batch: Vec<WaitingSignal>) {
        let mut timed_out: HashSet<Address> = HashSet::new();
        // Signals that timed out. They are set aside if another signal was written. Otherwise the database is slow, and all of them go to the spool.
        let mut slow: Vec<WaitingSignal> = Vec::new();
        let mut any_written = false;
        // The number of parts that timed out since the last success.
        let mut in_a_row = 0;
        let mut left = VecDeque::from(parts(batch));
        while let Some(part) = left.pop_front() {
            if self.is_behind() || in_a_row >= SLOW {
                slow.extend(part);
                slow.extend(left.into_iter().flatten());
                self.keep(slow).await;
                return;
            }
            let part = self.without_waiting(part, &timed_out, &mut slow);
            if part.is_empty() {
                continue;
            }
            match self.attempt(part, Some(ALONE)).await {
                Ok(()) => {
                    in_a_row = 0;
                    any_written = true;
                }
                Err(Failed { error, batch }) if error.is_timed_out() => {
                    in_a_row += 1;
                    match batch.as_slice() {
                        [one] => {
                            tracing::error!(error = %with_sources(&error), "a signal timed out alone");
                            timed_out.insert(one.incoming.address.clone());
                            slow.extend(batch);
                        }
                        _ => put_first(&mut left, parts(batch)),
                    }
                }
                Err(Failed { error, batch }) if error.is_unavailable() => self.keep_numbered(batch).await,
                Err(Failed { error, batch }) if batch.len() == 1 => {
                    tracing::error!(error = %with_sources(&error), "a signal could not be written");
                }
                Err(Failed { batch, .. }) => put_first(&mut left, parts(batch)),
            }
        }
        if self.is_behind() || !any_written {
            self.keep(slow).await;
        } else {
            self.put_aside(slow).await;
        }
    }

    /// Removes signals from a part if others of their address wait for a locked row or have timed out. This keeps the order of a monitor's signals.
    fn without_waiting(
        &mut self,
        part: Vec<WaitingSignal>,
        timed_out: &HashSet<Address>,
        slow: &mut Vec<WaitingSignal>,
    ) -> Vec<WaitingSignal> {
        let (mut tried, mut held) = (Vec::with_capacity(part.len()), Vec::new());
        for one in part {
            let address = &one.incoming.address;
            if self.held.iter().any(|held| held.incoming.address == *address) {
                held.push(one);
            } else if timed_out.contains(address) {
                slow.push(one);
            } else {
                tried.push(one);
            }
        }
        self.hold(held);
        tried
    }
}

fn put_first(left: &mut VecDeque<Vec<WaitingSignal>>, parts: Vec<Vec<WaitingSignal>>) {
    for part in parts.into_iter().rev() {
        left.push_front(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_batch_comes_down_to_single_signals_before_the_database_counts_as_slow() {
        // A batch starts with the signals that wait for locked rows, followed by new ones.
        let mut part = super::super::MOST_HELD + super::super::BATCH;
        let mut steps = 0;
        while part > 1 {
            part = part_of(part);
            steps += 1;
        }
        assert!(steps < SLOW, "{steps} steps");
    }
}
