//! Finds the signals of a failed batch that cannot be written, and writes all others.
//!
//! A failed batch is tried again in parts, and a part that fails in parts of its own. One bad signal among 512 costs some twenty short
//! transactions, not one for each signal: whoever can make the database refuse a signal must not cost the lane 512 commits each time.

use std::collections::{HashSet, VecDeque};

use deadbeat_store::with_sources;

use super::{ALONE, Failed, Waiting, Writer};
use crate::monitor::signal::incoming::Address;

/// Parts of a failed batch. With 16 of them a batch comes down to single signals in three steps, and each step of a signal that times out
/// takes [`ALONE`]; with two parts it would take nine steps.
const PARTS: usize = 16;
/// After so many timeouts one after the other, the database is slow, not the signals bad. More than the steps down to a single signal.
const SLOW: usize = 4;

/// How many signals each part of so many has: one at least.
pub(super) fn part_of(signals: usize) -> usize {
    signals.div_ceil(PARTS).max(1)
}

/// The parts of a failed batch, in the order of the signals.
fn parts(batch: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let size = part_of(batch.len());
    let mut parts = Vec::with_capacity(PARTS);
    let mut rest = batch.into_iter();
    loop {
        let part: Vec<Waiting> = rest.by_ref().take(size).collect();
        if part.is_empty() {
            return parts;
        }
        parts.push(part);
    }
}

impl Writer {
    /// Tries a failed batch in parts. Once something goes to the spool, everything after it goes behind.
    pub(super) async fn isolate(&mut self, batch: Vec<Waiting>) {
        let mut timed_out: HashSet<Address> = HashSet::new();
        // They are set aside once another one was written. When none is, the database is slow, and all of them go to the spool.
        let mut slow: Vec<Waiting> = Vec::new();
        let mut any_written = false;
        // Parts that timed out since one succeeded.
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

    /// Takes those signals out of a part that follow others of their address, so that the order of a monitor's signals holds: others of it
    /// wait for a locked row, or timed out.
    fn without_waiting(
        &mut self,
        part: Vec<Waiting>,
        timed_out: &HashSet<Address>,
        slow: &mut Vec<Waiting>,
    ) -> Vec<Waiting> {
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

fn put_first(left: &mut VecDeque<Vec<Waiting>>, parts: Vec<Vec<Waiting>>) {
    for part in parts.into_iter().rev() {
        left.push_front(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_batch_comes_down_to_single_signals_before_the_database_counts_as_slow() {
        // Signals that are held come before a batch of new ones.
        let mut part = super::super::MOST_HELD + super::super::BATCH;
        let mut steps = 0;
        while part > 1 {
            part = part_of(part);
            steps += 1;
        }
        assert!(steps < SLOW, "{steps} steps");
    }
}
