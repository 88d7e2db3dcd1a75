//! `deadbeat secrets rotate`: seals all secrets again, with the first key.
//!
//! The rotation works in batches, one transaction each, while servers run. A rotation that is killed leaves channels
//! of both keys. Every server with both keys can open them, and the next run goes on.

use std::fs::File;

use chrono::{DateTime, Utc};
use deadbeat_store::alert::claim::START;
use deadbeat_store::alert::sealed;
use deadbeat_store::{Store, StoreError, StoreResult};
use thiserror::Error;

use super::keeper::{BATCH, write};
use crate::alert::push_key;
use crate::secret::keyring::{KeyError, Keyring};

/// Progress of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of channels that this run has sealed.
    pub sealed: i64,
    /// Number of channels that had to be sealed when the run began.
    pub total: i64,
}

/// Result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that seals from now on.
    pub key: String,
    /// Number of channels that were sealed again.
    pub sealed: i64,
    /// Number of channels that cannot be opened, by key. If this process has the key, their ciphertexts are damaged.
    pub unopened: Vec<(String, i64)>,
}

/// Why a rotation ended.
#[derive(Debug, Error)]
pub enum RotationError {
    /// There is no key.
    #[error(
        "there is no key: set DEADBEAT_SECRET_KEY, or start the server once, which makes one in the data folder"
    )]
    NoKey,
    /// A key is missing, and the operator did not accept the loss of its channels.
    #[error(
        "{channels} channels cannot be opened: key {id} is missing. Add it after the new key. Only if it is lost for good: \
         `deadbeat secrets rotate --accept-loss`, and the secrets of these channels must be entered again"
    )]
    Missing {
        /// The key's id.
        id: String,
        /// Number of channels that the missing keys seal.
        channels: i64,
    },
    /// The file of keys cannot be read or changed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database is away.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the key to rotate to, if the keys are in the file: puts a new key first. If an earlier rotation was
/// interrupted, its key stays first, and that rotation goes on. If the file is lost, makes a new file only when the
/// operator accepts the loss.
///
/// Keep the returned lock on the file until the rotation ends.
///
/// # Errors
/// If the database is away, or the file cannot be changed.
pub async fn prepare(
    store: &Store,
    ring: &Keyring,
    accepts_loss: bool,
) -> Result<Option<File>, RotationError> {
    if ring.is_given() {
        return Ok(None);
    }
    let Some(lock) = ring.lock_file()? else {
        return Ok(None);
    };
    match (ring.first(), sealed::agreed(&store.reader()).await?) {
        (None, _) if accepts_loss => ring.make_file()?,
        // The agreement moves to the new key at the end of a rotation.
        (Some(first), Some(agreed)) if first.id() == agreed => ring.add_to_file(&lock)?,
        _ => {}
    }
    Ok(Some(lock))
}

/// Seals all secrets again with the first key.
///
/// # Errors
/// If a key is missing and the loss of its channels is not accepted, or the database is away. What was sealed stays
/// sealed.
pub async fn rotate(
    store: &Store,
    ring: &Keyring,
    accepts_loss: bool,
    now: DateTime<Utc>,
    mut report: impl FnMut(Progress),
) -> Result<Rotated, RotationError> {
    let missing = super::keeper::missing(store, ring).await?;
    if let Some(lost) = missing.first().filter(|_| !accepts_loss) {
        return Err(RotationError::Missing {
            id: lost.id.clone(),
            channels: missing.iter().map(|lost| lost.channels).sum(),
        });
    }
    let key = ring.first().ok_or(RotationError::NoKey)?;
    let mut sealed = 0;
    let mut total = None;
    // A server that lacks the new key may seal with the old one meanwhile, so repeat until a round seals nothing.
    let unopened = loop {
        let others = others(store, key.id()).await?;
        let known: i64 = others
            .iter()
            .filter(|(id, _)| ring.get(id).is_some())
            .map(|(_, count)| count)
            .sum();
        let total = *total.get_or_insert(known);
        let before = sealed;
        for (other, _) in &others {
            let mut after = START;
            loop {
                let mut tx = store.begin().await?;
                let batch = sealed::lock_sealed_by(&mut tx, other, after, BATCH).await?;
                let done = write(&mut tx, ring, &key, &batch).await?;
                tx.commit().await?;
                sealed += i64::try_from(done).unwrap_or(i64::MAX);
                if done > 0 {
                    report(Progress { sealed, total });
                }
                match batch.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
        }
        if sealed == before {
            break others;
        }
    };
    push_key::seal_again(store, ring, &key).await?;
    let mut tx = store.begin().await?;
    sealed::agree(&mut tx, key.id(), now).await?;
    sealed::replace(&mut tx, key.id(), now).await?;
    tx.commit().await?;
    Ok(Rotated {
        key: key.id().to_owned(),
        sealed,
        unopened,
    })
}

/// Returns the other keys, each with the number of channels that it seals.
async fn others(store: &Store, key: &str) -> StoreResult<Vec<(String, i64)>> {
    let used = sealed::count_by_key(&store.reader()).await?;
    Ok(used.into_iter().filter(|(id, _)| id != key).collect())
}
