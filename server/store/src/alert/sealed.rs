//! Sealing the secrets of channels: column `channel.sealed` and table `sealing_key`.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::sealed::Sealed;
use deadbeat_domain::ids::{ChannelId, ProjectId};
use serde_json::Value;
use uuid::Uuid;

use crate::alert::channel::{read_sealed, sealed_json};
use crate::alert::claim::Place;
use crate::monitor::batch::column;
use crate::{Reader, StoreError, StoreResult, Tx};

/// The secrets of one channel.
#[derive(Clone)]
pub struct Secrets {
    /// The channel's id.
    pub id: ChannelId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its kind and settings, as stored.
    pub settings: Settings,
    /// The ciphertexts. None: the channel is not sealed yet.
    pub sealed: Option<Sealed>,
    /// The signing secret in clear, written by an older version.
    pub signing_secret: Option<String>,
    /// The confirmation secret in clear, written by an older version.
    pub confirm_secret: Option<String>,
}

/// The secrets stay out of logs.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    kind: String,
    settings: Value,
    sealed: Option<Value>,
    signing_secret: Option<String>,
    confirm_secret: Option<String>,
}

/// Some channels of a walk.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The channels that can be read.
    pub channels: Vec<Secrets>,
    /// The ids of the channels that cannot be read.
    pub unreadable: Vec<ChannelId>,
    /// Where to continue. None: this was the last batch.
    pub next: Option<Place>,
}

impl Batch {
    fn of(rows: Vec<Row>, limit: i64) -> Self {
        let is_full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
        let next = rows
            .last()
            .filter(|_| is_full)
            .map(|row| (ProjectId(row.project_id), ChannelId(row.id)));
        let mut batch = Self {
            channels: Vec::new(),
            unreadable: Vec::new(),
            next,
        };
        for row in rows {
            let (settings, sealed) = (Settings::of_row(row.kind, row.settings), read_sealed(row.sealed));
            match (settings, sealed) {
                (Some(settings), Ok(sealed)) => batch.channels.push(Secrets {
                    id: ChannelId(row.id),
                    project_id: ProjectId(row.project_id),
                    settings,
                    sealed,
                    signing_secret: row.signing_secret,
                    confirm_secret: row.confirm_secret,
                }),
                _ => batch.unreadable.push(ChannelId(row.id)),
            }
        }
        batch
    }
}

/// Locks channels with secrets in clear, in the order of [`Place`], starting after `after`. Skips channels that another transaction has locked.
///
/// # Errors
/// When the database is away.
pub async fn lock_clear(tx: &mut Tx, after: Place, limit: i64) -> StoreResult<Batch> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, kind, settings, sealed, signing_secret, confirm_secret
        FROM channel
        WHERE (project_id, id) > ($1, $2) AND (sealed IS NULL OR signing_secret IS NOT NULL OR confirm_secret IS NOT NULL)
        ORDER BY project_id, id
        LIMIT $3
        FOR NO KEY UPDATE SKIP LOCKED",
        after.0.0,
        after.1.0,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Batch::of(rows, limit))
}

/// Locks channels that this key seals, in the same order. Waits for channels that another transaction has locked.
///
/// # Errors
/// When the database is away.
pub async fn lock_sealed_by(tx: &mut Tx, key: &str, after: Place, limit: i64) -> StoreResult<Batch> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, kind, settings, sealed, signing_secret, confirm_secret
        FROM channel
        WHERE sealed ->> 'key' = $1 AND (project_id, id) > ($2, $3)
        ORDER BY project_id, id
        LIMIT $4
        FOR NO KEY UPDATE",
        key,
        after.0.0,
        after.1.0,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Batch::of(rows, limit))
}

/// Writes the sealed secrets of channels, and deletes the secrets in clear. The caller holds the channels' locks.
///
/// # Errors
/// When the database is away.
pub async fn write(tx: &mut Tx, channels: &[(ProjectId, ChannelId, Settings, Sealed)]) -> StoreResult<()> {
    if channels.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE channel
        SET settings = written.settings, sealed = written.sealed, signing_secret = NULL, confirm_secret = NULL
        FROM UNNEST($1::uuid[], $2::uuid[], $3::jsonb[], $4::jsonb[]) AS written (project_id, id, settings, sealed)
        WHERE channel.project_id = written.project_id AND channel.id = written.id",
        &column(channels, |(project, ..)| project.0),
        &column(channels, |(_, id, ..)| id.0),
        &column(channels, |(_, _, settings, _)| settings.to_json()),
        &column(channels, |(.., sealed)| sealed_json(Some(sealed)).unwrap_or_default())
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the key that the servers of this database agreed on. If there is none yet, they agree on `proposed`.
///
/// # Errors
/// When the database is away.
pub async fn agree(tx: &mut Tx, proposed: &str, now: DateTime<Utc>) -> StoreResult<String> {
    sqlx::query!(
        "INSERT INTO sealing_key (key_id, since) VALUES ($1, $2) ON CONFLICT (is_only) DO NOTHING",
        proposed,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(sqlx::query_scalar!("SELECT key_id FROM sealing_key")
        .fetch_one(tx.conn())
        .await?)
}

/// Returns the key that the servers of this database agreed on. None: no server has sealed anything yet.
///
/// # Errors
/// When the database is away.
pub async fn agreed(reader: &Reader) -> StoreResult<Option<String>> {
    Ok(sqlx::query_scalar!("SELECT key_id FROM sealing_key")
        .fetch_optional(reader.pool())
        .await?)
}

/// Replaces the key that the servers agreed on.
///
/// # Errors
/// When the database is away.
pub async fn replace(tx: &mut Tx, key: &str, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE sealing_key SET key_id = $1, since = $2 WHERE key_id <> $1",
        key,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of channels that each key seals.
///
/// # Errors
/// When the database is away, or [`StoreError::Corrupt`] when PostgreSQL answers without a key.
pub async fn count_by_key(reader: &Reader) -> StoreResult<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"
        SELECT sealed ->> 'key' AS key_id, count(*) AS "channels!"
        FROM channel
        WHERE sealed ->> 'key' IS NOT NULL
        GROUP BY sealed ->> 'key'
        ORDER BY sealed ->> 'key'
        "#
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = row
                .key_id
                .ok_or_else(|| StoreError::Corrupt("a channel's key".to_owned()))?;
            Ok((key, row.channels))
        })
        .collect()
}

/// Returns the number of channels that have secrets in clear.
///
/// # Errors
/// When the database is away.
pub async fn count_clear(reader: &Reader) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "channels!"
        FROM channel
        WHERE sealed IS NULL OR signing_secret IS NOT NULL OR confirm_secret IS NOT NULL
        "#
    )
    .fetch_one(reader.pool())
    .await?)
}
