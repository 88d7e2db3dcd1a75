//! The key with which this deployment identifies itself to push services: table `push_key`.

use chrono::{DateTime, Utc};

use crate::{Reader, StoreResult, Tx};

/// The stored key.
#[derive(Clone)]
pub struct PushKey {
    /// The public key in base64url, for browsers.
    pub public_key: String,
    /// The id of the key that seals the private key.
    pub key_id: String,
    /// The ciphertext of the private key.
    pub sealed: String,
}

/// Ciphertexts are of no use in logs.
impl std::fmt::Debug for PushKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushKey")
            .field("public_key", &self.public_key)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Returns the key. None: nobody has needed it yet.
///
/// # Errors
/// When the database is away.
pub async fn get(reader: &Reader) -> StoreResult<Option<PushKey>> {
    Ok(
        sqlx::query_as!(PushKey, "SELECT public_key, key_id, sealed FROM push_key")
            .fetch_optional(reader.pool())
            .await?,
    )
}

/// Returns the key that the servers of this database agreed on. If there is none yet, they agree on `proposed`.
///
/// # Errors
/// When the database is away.
pub async fn agree(tx: &mut Tx, proposed: &PushKey, now: DateTime<Utc>) -> StoreResult<PushKey> {
    sqlx::query!(
        "INSERT INTO push_key (public_key, key_id, sealed, since) VALUES ($1, $2, $3, $4) ON CONFLICT (is_only) DO NOTHING",
        proposed.public_key,
        proposed.key_id,
        proposed.sealed,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(
        sqlx::query_as!(PushKey, "SELECT public_key, key_id, sealed FROM push_key")
            .fetch_one(tx.conn())
            .await?,
    )
}

/// Locks the key, so that it can be sealed again.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx) -> StoreResult<Option<PushKey>> {
    Ok(sqlx::query_as!(
        PushKey,
        "SELECT public_key, key_id, sealed FROM push_key FOR UPDATE"
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Writes the key's new ciphertext. The caller holds its lock.
///
/// # Errors
/// When the database is away.
pub async fn seal_again(tx: &mut Tx, key_id: &str, sealed: &str) -> StoreResult<()> {
    sqlx::query!("UPDATE push_key SET key_id = $1, sealed = $2", key_id, sealed)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Deletes the key, because nobody can open it any more. The caller holds its lock.
///
/// # Errors
/// When the database is away.
pub async fn delete(tx: &mut Tx) -> StoreResult<()> {
    sqlx::query!("DELETE FROM push_key").execute(tx.conn()).await?;
    Ok(())
}
