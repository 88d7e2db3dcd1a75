//! The spool's signals become rows, when the database is back.

use std::time::Duration;

use deadbeat_store::monitor::Held;
use deadbeat_store::{StoreError, StoreResult, Tx, with_sources};
use uuid::Uuid;

use super::commit::{Fate, Place};
use super::isolate::part_of;
use super::{ALONE, BATCH, Writer};
use crate::monitor::signal::incoming::Incoming;
use crate::monitor::signal::spool::{Spool, SpoolError, Spooled};

/// For how long the spool is replayed before those who arrive meanwhile are attended to.
const REPLAY_SHARE: Duration = Duration::from_millis(200);

/// Why a replay did not go on.
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
            // It was there a moment ago: go on without asking.
            self.probe = Some(tokio::spawn(async { true }));
            tokio::task::yield_now().await;
        } else {
            (self.trusted, self.replayed) = (0, BATCH);
            tracing::info!("the spool is replayed");
        }
    }

    /// Replays the oldest signals of the spool, in one transaction if possible. False: the database is away again.
    async fn replay_once(&mut self) -> Result<bool, SpoolError> {
        let Some(spool) = self.spool.clone() else {
            return Ok(false);
        };
        if !self.suspects.is_empty() {
            self.set_suspects_aside(&spool, &spool.oldest(BATCH).await?)
                .await?;
        }
        // A row that somebody holds is waited for, but not for long: then its signals are set aside. While a bad signal is looked for, nothing
        // is waited for.
        let ways: &[Held] = if self.replayed < BATCH {
            &[Held::Skip]
        } else {
            &[Held::Wait, Held::Skip]
        };
        for &held in ways {
            // Read anew each time: what was set aside is not in the order any more, and may be written by now.
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
            // Nothing may have a number again that the database has: a file of an older version does not say what was given.
            self.position = self.position.max(done);
            // Committed after all, and only the answer was lost.
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

    /// How far this spool's writer has come, and a transaction that keeps it there.
    async fn lock_position(&self, writer: Uuid) -> StoreResult<(Tx, u64)> {
        let mut tx = self.committer.store.begin().await?;
        let done = deadbeat_store::operation::writer::lock_position(&mut tx, writer).await?;
        deadbeat_store::operation::writer::limit_statements(&mut tx, ALONE).await?;
        Ok((tx, done))
    }

    /// Writes spooled signals in one transaction, which brings the writer to the last one's number. Those that cannot be part of it are
    /// set aside in the file before: the number says that they are dealt with.
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
            "spooled signals cannot be written for now; they are set aside"
        );
        spool.set_aside(stuck).await?;
        let count = stuck.len() as u64;
        self.figures
            .set_aside
            .fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// A transaction of these signals failed: the next one takes a part of them. What cannot be written alone is set aside: it would stop
    /// everything behind it for ever. Others of its address follow it aside, so a monitor holds the lane but once.
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
            tracing::error!(error = %with_sources(error), "a spooled signal cannot be written; it is set aside");
            return self.set_aside(spool, &[one]).await;
        }
        tracing::error!(error = %with_sources(error), signals = due.len(), "a spooled batch failed; it is tried in parts");
        self.replayed = part_of(due.len());
        Ok(())
    }
}
