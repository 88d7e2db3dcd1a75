//! The spool's signals become rows, when the database is back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use deadbeat_store::{StoreResult, Tx, with_sources};
use uuid::Uuid;

use super::{BATCH, Writer};
use crate::ingest::{Accepted, Incoming};
use crate::spool::{SpoolError, Spooled};

/// For how long the spool is replayed before those who arrive meanwhile are attended to.
const REPLAY_SHARE: Duration = Duration::from_millis(200);

impl Writer {
    /// Replays what is in the spool, when the database is back.
    pub(super) async fn catch_up(&mut self) {
        match self.probe.take_if(|probe| probe.is_finished()) {
            Some(probe) => {
                if !probe.await.unwrap_or(false) {
                    return;
                }
            }
            None => {
                if self.probe.is_none() {
                    let reader = self.store.reader();
                    self.probe = Some(tokio::spawn(async move { reader.check().await.is_ok() }));
                }
                return;
            }
        }
        let began = tokio::time::Instant::now();
        while self.is_behind() && began.elapsed() < REPLAY_SHARE {
            match self.replay_once().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be replayed");
                    return;
                }
            }
        }
        if self.is_behind() {
            // It was there a moment ago: go on without asking.
            self.probe = Some(tokio::spawn(async { true }));
            tokio::task::yield_now().await;
        } else {
            self.trusted = 0;
            tracing::info!("the spool is replayed");
        }
    }

    /// Replays the oldest batches of the spool in one transaction. False: the database is away again.
    async fn replay_once(&mut self) -> Result<bool, SpoolError> {
        let Some(spool) = self.spool.clone() else {
            return Ok(false);
        };
        let oldest = spool.oldest(BATCH).await?;
        let Some(last) = oldest.last().map(|spooled| spooled.position) else {
            return Ok(false);
        };
        let (tx, done) = match self.lock_position(spool.writer()).await {
            Ok(locked) => locked,
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "the spool cannot be replayed yet");
                return Ok(false);
            }
        };
        // Committed after all, and only the answer was lost.
        let due: Vec<&Spooled> = oldest.iter().filter(|spooled| spooled.position > done).collect();
        let signals: Vec<&Incoming> = due.iter().map(|spooled| &spooled.incoming).collect();
        if !signals.is_empty() {
            match self.commit_in(tx, &signals, last).await {
                Ok(accepted) => self.count_replayed(&accepted),
                Err(error) if error.is_unavailable() => return Ok(false),
                Err(error) => {
                    tracing::error!(error = %with_sources(&error), signals = signals.len(), "a spooled batch failed; its signals are tried one by one");
                    if !self.replay_one_by_one(&signals, last).await {
                        return Ok(false);
                    }
                }
            }
        }
        spool.forget(last).await?;
        Ok(true)
    }

    /// How far this spool's writer has come, and a transaction that keeps it there.
    async fn lock_position(&self, writer: Uuid) -> StoreResult<(Tx, u64)> {
        let mut tx = self.store.begin().await?;
        let done = deadbeat_store::writer::lock_position(&mut tx, writer).await?;
        Ok((tx, done))
    }

    /// What cannot be written is reported and dropped: it would stop everything behind it for ever. False: the database is away.
    async fn replay_one_by_one(&mut self, signals: &[&Incoming], position: u64) -> bool {
        for (index, one) in signals.iter().enumerate() {
            // The place is advanced with the last one only: until then the whole batch would be tried again.
            let is_last = index + 1 == signals.len();
            match self
                .commit(&[*one], if is_last { position } else { 0 }, None)
                .await
            {
                Ok(accepted) => self.count_replayed(&accepted),
                Err(error) if error.is_unavailable() => return false,
                Err(error) => {
                    tracing::error!(error = %with_sources(&error), "a spooled signal cannot be written and is dropped")
                }
            }
        }
        true
    }

    fn count_replayed(&self, accepted: &[Option<Accepted>]) {
        for one in accepted.iter().flatten() {
            let figure = match one {
                Accepted::Recorded => &self.figures.recorded,
                Accepted::Unknown { .. } => &self.figures.unknown,
            };
            figure.fetch_add(1, Ordering::Relaxed);
        }
    }
}
