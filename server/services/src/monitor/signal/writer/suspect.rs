//! Signals with which the writer panicked repeatedly. It writes them apart from all others.

use std::sync::atomic::Ordering;

use deadbeat_store::with_sources;

use super::{ALONE, Failed, WaitingSignal, Writer};
use crate::monitor::signal::spool::{Spool, SpoolError, Spooled};
use crate::operation::lane::{Panicked, alone};

impl Writer {
    /// Removes the signals of suspect addresses from a batch, and returns the rest.
    ///
    /// With a spool, these signals are set aside, and the retries try each alone. Without a spool, the writer tries each alone at once. If it panics,
    /// the client gets "try again".
    pub(super) async fn isolate_suspects(&mut self, batch: Vec<WaitingSignal>) -> Vec<WaitingSignal> {
        if self.suspects.is_empty() {
            return batch;
        }
        let (suspect, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|one| self.suspects.has(&one.incoming.address));
        if suspect.is_empty() {
            return rest;
        }
        tracing::error!(
            signals = suspect.len(),
            "the writer panicked repeatedly while it wrote signals of these addresses; each is tried alone"
        );
        if self.spool.is_some() {
            self.put_aside(suspect).await;
            return rest;
        }
        for one in suspect {
            match alone(self.attempt(vec![one], Some(ALONE))).await {
                Ok(Ok(())) => {}
                Ok(Err(Failed { error, .. })) => {
                    tracing::error!(error = %with_sources(&error), "a signal could not be written");
                }
                Err(Panicked) => {
                    self.figures.panicked.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("a signal makes its writer panic; its client gets \"try again\"");
                }
            }
        }
        rest
    }

    /// Sets the spooled signals of suspect addresses aside. Otherwise the replay would panic again, and block everything behind them forever.
    pub(super) async fn set_suspects_aside(
        &self,
        spool: &Spool,
        oldest: &[Spooled],
    ) -> Result<(), SpoolError> {
        let suspect: Vec<&Spooled> = oldest
            .iter()
            .filter(|spooled| self.suspects.has(&spooled.incoming.address))
            .collect();
        self.set_aside(spool, &suspect).await
    }
}
