//! The loop that seals what stands in clear, and notes which keys are missing.
//!
//! Rows of older versions stand in clear, and so does what an older server writes during an upgrade. Each pass walks over them in batches,
//! each a transaction, and may be repeated at any time. Every process runs the loop, so every process knows which keys it lacks.

use std::sync::Arc;
use std::time::Duration;

use deadbeat_domain::time::Clock;
use deadbeat_store::alert::claim::START;
use deadbeat_store::alert::sealed::{self, Batch};
use deadbeat_store::{Store, StoreResult, with_sources};
use tokio_util::sync::CancellationToken;

use super::{agreed, open, seal};
use crate::alert::delivery::senders;
use crate::operation::duty::Duty;
use crate::secret::key::Key;
use crate::secret::keyring::{KeyError, Keyring, MissingKey};

/// Between two passes.
const PAUSE: Duration = Duration::from_secs(60);
/// Channels of one transaction.
pub(super) const BATCH: i64 = 200;

/// The loop.
pub struct Keeper {
    store: Store,
    clock: Arc<dyn Clock>,
    ring: Keyring,
    duty: Duty,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Channels that were sealed.
    pub sealed: usize,
    /// Channels that still stand in clear: their kind is not known here, or a part of them cannot be opened.
    pub left: usize,
}

impl Keeper {
    /// Puts the parts together.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, ring: Keyring) -> Self {
        Self {
            store,
            clock,
            ring,
            duty: Duty::new("sealing"),
        }
    }

    /// What the loop reports of itself. Its backlog is the channels with secrets in clear that the last pass left.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Passes once a minute until told to stop.
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

    /// Seals what stands in clear, and notes which keys are missing.
    ///
    /// # Errors
    /// The database is away. The batches that were sealed stay sealed.
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

    /// Says once of each key that it is missing, or is there again.
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
                tracing::info!(key.id = %id, "no channel waits for this key any more");
            }
        }
        Ok(())
    }
}

/// The keys that seal channels, or on which the servers agreed, and that are not in the ring.
///
/// # Errors
/// The database is away.
pub async fn missing(store: &Store, ring: &Keyring) -> StoreResult<Vec<MissingKey>> {
    let reader = store.reader();
    let mut used = sealed::count_by_key(&reader).await?;
    if let Some(agreed) = sealed::agreed(&reader).await?
        && used.iter().all(|(id, _)| *id != agreed)
    {
        used.push((agreed, 0));
    }
    Ok(used
        .into_iter()
        .filter(|(id, _)| ring.get(id).is_none())
        .map(|(id, channels)| MissingKey { id, channels })
        .collect())
}

/// Seals a batch with this key. Returns how many channels that were.
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
            // Of a kind that is not known here, a newer server knows which settings are secret.
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

/// Makes the data folder's file of keys at the first start: nothing was sealed in this database yet, and no key is set.
///
/// # Errors
/// The database is away, or the file cannot be made.
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
    /// The file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database.
    #[error(transparent)]
    Store(#[from] deadbeat_store::StoreError),
}
