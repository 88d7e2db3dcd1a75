//! Writes the spool's signals to the database once it can be reached again.

use std::time::Duration;

use deadbeat_store::monitor::Held;
use deadbeat_store::{StoreError, StoreResult, Tx, with_sources};
use uuid::Uuid;

use super::commit::{Fate, Place};
use super::isolate::part_of;
use super::{ALONE, BATCH, Writer};
use crate::monitor::signal::incoming::Incoming;
use crate::monitor::signal::spool::{Spool, SpoolError, Spooled};

/// How long a replay runs before the writer handles the signals that have arrived in the meantime.
const REPLAY_SHARE: Duration = Duration::from_millis(200);

/// Why a replay stopped.
enum Stopped {
    /// The transaction failed.
    Store(StoreError),
    /// The file failed.
    Spool(SpoolError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SpoolError> for Stopped {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl Writer {
    /// Replays the spool if the database can be reached again.
    pub(super) async fn catch_up(&mut self) {
        match self.probe.take_if(|probe| probe.is_finished()) {
            Some(probe) => {
                if !probe.await.unwrap_or(false) {
                    return;
                }
            }
            None => {
                if self.probe.is_none() {
                    let reader = self.committer.store.reader();
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
                    tracing::error!(error = %with_sources(&error), "the spool cannot be replayed");
                    return;
                }
            }
        }
        if self.is_behind() {
            // The database could be reached a moment ago, so continue without a check.
            self.probe = Some(tokio::spawn(async { true }));
            tokio::task::yield_now().await;
        } else {
            (self.trusted, self.replayed) = (0, BATCH);
            tracing::info!("the spool is replayed");
        }
    }

    /// Replays the oldest signals of the spool, if possible in one transaction. Returns false if the database cannot be reached again.
    async fn replay_once(&mut self) -> Result<bool, SpoolError> {
        let Some(spool) = self.spool.clone() else {
            return Ok(false);
        };
        if !self.suspects.is_empty() {
            self.set_suspects_aside(&spool, &spool.oldest(BATCH).await?)
                .await?;
        }
        // Wait for locked rows first, but not for long: then skip them, and set their signals aside. While searching for a bad signal, do not wait at
        // all.
        let ways: &[Held] = if self.replayed < BATCH {
            &[Held::Skip]
        } else {
            &[Held::Wait, Held::Skip]
        };
        for &held in ways {
            // Read the signals again each time: signals that were set aside have left the order, and may already be written.
            let oldest = spool.oldest(self.replayed).await?;
            let Some(last) = oldest.last().map(|spooled| spooled.position) else {
                return Ok(true);
            };
            let (tx, done) = match self.lock_position(spool.writer()).await {
                Ok(locked) => locked,
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "the spool cannot be replayed yet");
                    return Ok(false);
                }
            };
            // No number of the database may be used again. The file of an older version does not say which numbers were given.
            self.position = self.position.max(done);
            // Signals up to `done` were committed after all; only the answer was lost.
            let due: Vec<&Spooled> = oldest.iter().filter(|spooled| spooled.position > done).collect();
            let replayed = if due.is_empty() {
                Ok(())
            } else {
                self.replay(tx, &spool, &due, held).await
            };
            match replayed {
                Ok(()) => {
                    spool.forget(last).await?;
                    self.replayed = (self.replayed * 2).min(BATCH);
                    return Ok(true);
                }
                Err(Stopped::Spool(error)) => return Err(error),
                Err(Stopped::Store(error)) if error.is_unavailable() && !error.is_timed_out() => {
                    tracing::warn!(error = %with_sources(&error), "the spool cannot be replayed yet");
                    return Ok(false);
                }
                Err(Stopped::Store(error)) if error.is_timed_out() && held == Held::Wait => {}
                Err(Stopped::Store(error)) => {
                    self.narrow(&spool, &due, done, &error).await?;
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Returns the number that this spool's writer has reached, and a transaction that locks it.
    async fn lock_position(&self, writer: Uuid) -> StoreResult<(Tx, u64)> {
        let mut tx = self.committer.store.begin().await?;
        let done = deadbeat_store::operation::writer::lock_position(&mut tx, writer).await?;
        deadbeat_store::operation::writer::limit_statements(&mut tx, ALONE).await?;
        Ok((tx, done))
    }

    /// Writes spooled signals in one transaction, which advances the writer to the number of the last one. Signals that cannot be part of it are
    /// first set aside in the file, because that number also covers them.
    async fn replay(&mut self, tx: Tx, spool: &Spool, due: &[&Spooled], held: Held) -> Result<(), Stopped> {
        let Some(last) = due.last() else {
            return Ok(());
        };
        let signals: Vec<&Incoming> = due.iter().map(|spooled| &spooled.incoming).collect();
        let _watch = self
            .suspects
            .watch(due.iter().map(|spooled| &spooled.incoming.address));
        let mut taken = self.committer.take(tx, &signals, held).await?;
        let stays: Vec<bool> = taken
            .can_be_written()
            .zip(&signals)
            .map(|(can, signal)| can && !spool.is_aside(&signal.address))
            .collect();
        let stuck: Vec<&Spooled> = due
            .iter()
            .zip(&stays)
            .filter(|(_, stays)| !**stays)
            .map(|(one, _)| *one)
            .collect();
        self.set_aside(spool, &stuck).await?;
        taken.retain(&stays);
        let mut stays = stays.iter();
        let signals: Vec<&Incoming> = signals
            .into_iter()
            .filter(|_| stays.next().copied().unwrap_or(true))
            .collect();
        let place = Place {
            writer: spool.writer(),
            number: last.position,
            is_replay: true,
        };
        for fate in self.committer.write(taken, &signals, Some(place)).await? {
            if let Fate::Answered(accepted) = fate {
                self.figures.count(accepted);
            }
        }
        self.suspects.forgive(signals.iter().map(|one| &one.address));
        Ok(())
    }

    pub(super) async fn set_aside(&self, spool: &Spool, stuck: &[&Spooled]) -> Result<(), SpoolError> {
        if stuck.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            signals = stuck.len(),
            "some spooled signals cannot be written for now and are set aside"
        );
        spool.set_aside(stuck).await?;
        let count = stuck.len() as u64;
        self.figures
            .set_aside
            .fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// Handles a failed transaction: the next one takes only a part of these signals. A signal that fails alone is set aside, because it would block
    /// everything behind it forever. Later signals of its address follow it, so one monitor delays the lane only once.
    async fn narrow(
        &mut self,
        spool: &Spool,
        due: &[&Spooled],
        done: u64,
        error: &StoreError,
    ) -> Result<(), SpoolError> {
        if due.windows(2).any(|two| two[0].position == two[1].position) {
            spool.renumber(done).await?;
            self.position = self.position.max(spool.last_position().await?.unwrap_or(0));
            return Ok(());
        }
        if let [one] = due {
            tracing::error!(error = %with_sources(error), "a spooled signal cannot be written and is set aside");
            return self.set_aside(spool, &[one]).await;
        }
        tracing::error!(error = %with_sources(error), signals = due.len(), "a spooled batch failed; the writer retries it in parts");
        self.replayed = part_of(due.len());
        Ok(())
    }
}
