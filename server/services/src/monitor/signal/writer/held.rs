//! Signals whose monitor another transaction has locked. They wait for a moment, and are then set aside.

use std::sync::atomic::Ordering;
use std::time::Instant;

use deadbeat_store::with_sources;

use super::{HELD, MOST_HELD, Writer};
use crate::monitor::signal::incoming::Accepted;
use crate::monitor::signal::ingest::WaitingSignal;

impl Writer {
    pub(super) fn hold(&mut self, batch: Vec<WaitingSignal>) {
        let now = Instant::now();
        self.held.extend(batch.into_iter().map(|mut one| {
            one.held_since.get_or_insert(now);
            one
        }));
    }

    /// Sets aside the signals that have waited long enough for a locked row. If there are too many, sets aside all of them.
    pub(super) async fn age_held(&mut self) {
        let is_full = self.held.len() > MOST_HELD;
        let is_old = |one: &WaitingSignal| one.held_since.is_some_and(|since| since.elapsed() >= HELD);
        if !is_full && !self.held.iter().any(is_old) {
            return;
        }
        let (old, young) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|one| is_full || is_old(one));
        self.held = young;
        self.put_aside(old).await;
    }

    /// Sets aside signals if others of their address are set aside, to keep their order. Returns the rest.
    pub(super) async fn follow_aside(&mut self, batch: Vec<WaitingSignal>) -> Vec<WaitingSignal> {
        let Some(spool) = self.spool.as_ref().filter(|spool| spool.aside() > 0) else {
            return batch;
        };
        let (following, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|one| spool.is_aside(&one.incoming.address));
        self.put_aside(following).await;
        rest
    }

    /// Sets signals aside in the spool's file, and acknowledges them. Without a spool, or beyond its limits, the clients get "try again".
    pub(super) async fn put_aside(&mut self, batch: Vec<WaitingSignal>) {
        let Some(spool) = self.spool.clone().filter(|_| !batch.is_empty()) else {
            return;
        };
        let (signals, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|one| (*one.incoming, one.answer)).unzip();
        match spool.append_aside(&signals).await {
            Ok(kept) => {
                let count = kept.iter().filter(|kept| **kept).count();
                self.figures.set_aside.fetch_add(count as u64, Ordering::Relaxed);
                if count < kept.len() {
                    tracing::error!(
                        signals = kept.len() - count,
                        "signals could not be set aside, because too many already are"
                    );
                }
                for (answer, _) in answers.into_iter().zip(kept).filter(|(_, kept)| *kept) {
                    let _ = answer.send(Accepted::Recorded);
                }
            }
            Err(error) => {
                tracing::error!(error = %with_sources(&error), signals = signals.len(), "signals could not be set aside")
            }
        }
    }
}
