//! The loop that seals secrets stored as plain text, and notes which keys are missing.
//!
//! Older versions stored secrets as plain text, and an older server still does so during an upgrade. Each pass reads
//! such rows in batches, with one transaction for each batch. A pass may be repeated at any time. Every process runs
//! the loop, so every process knows which keys it lacks.

use std::sync::Arc;
use std::time::Duration;

use deadbeat_domain::time::Clock;
use deadbeat_store::alert::claim::START;
use deadbeat_store::alert::push_key;
use deadbeat_store::alert::sealed::{self, Batch};
use deadbeat_store::{Store, StoreResult, with_sources};
use tokio_util::sync::CancellationToken;

use super::{agreed, open, seal};
use crate::alert::delivery::senders;
use crate::operation::duty::Duty;
use crate::secret::key::Key;
use crate::secret::keyring::{KeyError, Keyring, MissingKey};

/// Time between two passes.
const PAUSE: Duration = Duration::from_secs(60);
/// Number of channels in one transaction.
pub(super) const BATCH: i64 = 200;

/// The loop.
pub struct Keeper {
    store: Store,
    clock: Arc<dyn Clock>,
    ring: Keyring,
    duty: Duty,
}

/// Result of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Number of channels that were sealed.
    pub sealed: usize,
    /// Number of channels whose secrets are still plain text: this version does not know their kind, or a part of
    /// them cannot be opened.
    pub left: usize,
}

impl Keeper {
    /// Makes the loop.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, ring: Keyring) -> Self {
        Self {
            store,
            clock,
            ring,
            duty: Duty::new("sealing"),
        }
    }

    /// Returns the loop's duty. Its backlog is the number of channels that the last pass left as plain text.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Makes a pass once a minute until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let passed = self.pass_once().await;
            self.duty.ended(&passed);
            match passed {
                Ok(passed) => self.duty.left(passed.left),
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "the secrets of channels could not be checked; the next pass tries again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Makes one pass: seals secrets stored as plain text, and notes which keys are missing.
    ///
    /// # Errors
    /// If the database is away. Batches that were sealed stay sealed.
    pub async fn pass_once(&self) -> StoreResult<Passed> {
        let passed = self.seal_clear().await?;
        if passed.sealed > 0 {
            tracing::info!(channels = passed.sealed, "secrets of channels were sealed");
        }
        self.note_missing().await?;
        Ok(passed)
    }

    async fn seal_clear(&self) -> StoreResult<Passed> {
        let mut passed = Passed::default();
        let mut after = START;
        loop {
            let mut tx = self.store.begin().await?;
            let batch = sealed::lock_clear(&mut tx, after, BATCH).await?;
            let found = batch.channels.len() + batch.unreadable.len();
            if found == 0 {
                break;
            }
            let sealed = match agreed(&self.ring, &mut tx, self.clock.now()).await? {
                Ok(key) => write(&mut tx, &self.ring, &key, &batch).await?,
                // `note_missing` says which key is missing.
                Err(_) => 0,
            };
            tx.commit().await?;
            passed.sealed += sealed;
            passed.left += found - sealed;
            match batch.next {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(passed)
    }

    /// Logs once for each key that it is missing, or that it is back.
    async fn note_missing(&self) -> StoreResult<()> {
        let missing = missing(&self.store, &self.ring).await?;
        let before = self.ring.note_missing(missing.clone());
        for MissingKey { id, channels } in &missing {
            if before.iter().all(|known| known.id != *id) {
                tracing::error!(
                    key.id = %id, channels,
                    "a key that seals channels is missing: their alerts wait, for a day at most. Add the key to DEADBEAT_SECRET_KEY or to the data folder's secret.key"
                );
            }
        }
        for MissingKey { id, .. } in &before {
            if missing.iter().all(|still| still.id != *id) {
                tracing::info!(key.id = %id, "this key is no longer missing");
            }
        }
        Ok(())
    }
}

/// Returns the keys that this process lacks although they seal channels, or the servers agreed on them.
///
/// # Errors
/// If the database is away.
pub async fn missing(store: &Store, ring: &Keyring) -> StoreResult<Vec<MissingKey>> {
    let reader = store.reader();
    let mut used = sealed::count_by_key(&reader).await?;
    if let Some(agreed) = sealed::agreed(&reader).await?
        && used.iter().all(|(id, _)| *id != agreed)
    {
        used.push((agreed, 0));
    }
    if let Some(push) = push_key::get(&reader).await?
        && used.iter().all(|(id, _)| *id != push.key_id)
    {
        used.push((push.key_id, 0));
    }
    Ok(used
        .into_iter()
        .filter(|(id, _)| ring.get(id).is_none())
        .map(|(id, channels)| MissingKey { id, channels })
        .collect())
}

/// Seals a batch with this key. Returns the number of sealed channels.
pub(super) async fn write(
    tx: &mut deadbeat_store::Tx,
    ring: &Keyring,
    key: &Key,
    batch: &Batch,
) -> StoreResult<usize> {
    let sealed: Vec<_> = batch
        .channels
        .iter()
        .filter_map(|row| {
            // Leave channels of an unknown kind: only a newer server knows which of their settings are secret.
            let kind = senders::kind(row.settings.kind())?;
            let opened = open(ring, row)
                .inspect_err(|fault| tracing::warn!(channel.id = %row.id, "the channel {fault}"))
                .ok()?;
            let (settings, sealed) = seal(key, kind, row.project_id, row.id, &opened);
            Some((row.project_id, row.id, settings, sealed))
        })
        .collect();
    sealed::write(tx, &sealed).await?;
    Ok(sealed.len())
}

/// Makes the data folder's file of keys at the first start, when no key is set and nothing was sealed in this
/// database yet.
///
/// # Errors
/// If the database is away, or the file cannot be made.
pub async fn make_first_key(
    store: &Store,
    ring: &Keyring,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(), FirstKey> {
    if ring.first().is_none() && sealed::agreed(&store.reader()).await?.is_none() {
        ring.make_file()?;
        if let (Some(key), Some(file)) = (ring.first(), ring.file()) {
            tracing::warn!(
                key.id = key.id(), file = %file.display(),
                "a key for the secrets of channels was made: keep a copy of the file apart from the database"
            );
        }
    }
    if ring.first().is_none() {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    let agreed = agreed(ring, &mut tx, now).await?;
    tx.commit().await?;
    if let Err(reason) = agreed {
        tracing::error!("{reason}");
    }
    Ok(())
}

/// Why the first key was not made.
#[derive(Debug, thiserror::Error)]
pub enum FirstKey {
    /// The file cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database is away.
    #[error(transparent)]
    Store(#[from] deadbeat_store::StoreError),
}
