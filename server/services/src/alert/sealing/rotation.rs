//! `deadbeat secrets rotate`: seals everything anew with the first key.
//!
//! It goes in batches, each a transaction, while servers run. One that was killed leaves channels of both keys, which every server with both
//! keys opens; the next run goes on.

use std::fs::File;

use chrono::{DateTime, Utc};
use deadbeat_store::alert::claim::START;
use deadbeat_store::alert::sealed;
use deadbeat_store::{Store, StoreError, StoreResult};
use thiserror::Error;

use super::keeper::{BATCH, write};
use crate::secret::keyring::{KeyError, Keyring};

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Channels that this run has sealed.
    pub sealed: i64,
    /// Channels that were to be sealed when it began.
    pub total: i64,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that seals from now on.
    pub key: String,
    /// Channels that were sealed anew.
    pub sealed: i64,
    /// Channels that cannot be opened, by key. The key is there when their ciphertexts are damaged.
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
    /// A key is missing, and nobody said that its channels are lost.
    #[error(
        "{channels} channels cannot be opened: key {id} is missing. Add it after the new key. Only when it is lost for good: \
         `deadbeat secrets rotate --accept-loss`, and the secrets of these channels must be entered again"
    )]
    Missing {
        /// Its id.
        id: String,
        /// How many channels it seals.
        channels: i64,
    },
    /// The file of keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the key to rotate to, where the keys stand in the file: a new key is put first, unless an earlier rotation was broken off. Then that
/// one goes on. A file that is lost is made anew when the loss is accepted.
///
/// The lock on the file must live as long as the rotation.
///
/// # Errors
/// The database is away, or the file cannot be changed.
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

/// Seals everything anew with the first key.
///
/// # Errors
/// A key is missing and its channels are not accepted as lost, or the database is away. What was sealed stays sealed.
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
    // A server that does not have the new key yet seals with the old one meanwhile; so it looks until nothing is left.
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

/// The keys other than this one, with the channels that they seal.
async fn others(store: &Store, key: &str) -> StoreResult<Vec<(String, i64)>> {
    let used = sealed::count_by_key(&store.reader()).await?;
    Ok(used.into_iter().filter(|(id, _)| id != key).collect())
}
