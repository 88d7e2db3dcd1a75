//! Finds the monitor that a request means: by ping id, by key and slug, or by Beat and entry.

use deadbeat_domain::ids::{ApiKeyId, MonitorId, PingId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::people::key_limit::KeyLimits;

use crate::people::api_key::limits;
use crate::{Reader, StoreResult, Tx};

/// Returns monitors and their ping ids, in id order, after a given monitor.
///
/// # Errors
/// When the database is away.
pub async fn ping_ids(
    reader: &Reader,
    after: Option<MonitorId>,
    limit: i64,
) -> StoreResult<Vec<(MonitorId, PingId)>> {
    let rows = sqlx::query!(
        "SELECT id, ping_id FROM monitor WHERE ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2",
        after.map(|id| id.0),
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.id), PingId(row.ping_id)))
        .collect())
}

/// A ping by key and slug, resolved: the key's access, and the monitor if there is one.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The place of the request (key and slug) in the arguments.
    pub index: usize,
    /// The access of the ping key.
    pub access: Access,
    /// The monitor of that slug.
    pub monitor_id: Option<MonitorId>,
    /// The limits of the ping key. None: it has no limit.
    pub limits: Option<Box<KeyLimits>>,
    /// The monitor's tags, if the key is limited to tags.
    pub tags: Vec<String>,
}

/// Resolves ping keys (by digest) and slugs. The answer leaves out unknown keys.
///
/// # Errors
/// When the database is away.
pub async fn resolve_slugs(tx: &mut Tx, digests: &[Vec<u8>], slugs: &[String]) -> StoreResult<Vec<Resolved>> {
    let rows = sqlx::query!(
        r#"
        SELECT asked.index AS "index!", api_key.id AS key_id, api_key.project_id, monitor.id AS "monitor_id?",
            expires_at, networks, slugs, api_key.tags, CASE WHEN api_key.tags IS NOT NULL THEN monitor.tags END AS monitor_tags
        FROM UNNEST($1::bytea[], $2::text[]) WITH ORDINALITY AS asked (digest, slug, index)
        JOIN api_key ON api_key.digest = asked.digest AND api_key.scope = 'ping' AND api_key.revoked_at IS NULL
        LEFT JOIN monitor ON monitor.project_id = api_key.project_id AND monitor.slug = asked.slug
        "#,
        digests,
        slugs
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Resolved {
            index: usize::try_from(row.index - 1).unwrap_or(usize::MAX),
            access: Access::new(
                ProjectId(row.project_id),
                Actor::Key {
                    id: ApiKeyId(row.key_id),
                    scope: Scope::Ping,
                },
            ),
            monitor_id: row.monitor_id.map(MonitorId),
            limits: Some(limits(row.expires_at, row.networks, row.slugs, row.tags))
                .filter(|limits| !limits.is_none())
                .map(Box::new),
            tags: row.monitor_tags.unwrap_or_default(),
        })
        .collect())
}

/// Returns the monitors of Beats' entries, and the ids in their ping URLs: (beat, entry) → ids.
///
/// # Errors
/// When the database is away.
pub async fn resolve_entries(
    reader: &Reader,
    project: ProjectId,
    beats: &[String],
    entries: &[String],
) -> StoreResult<Vec<(usize, MonitorId, PingId)>> {
    let rows = sqlx::query!(
        r#"
        SELECT asked.index AS "index!", monitor.id, monitor.ping_id
        FROM UNNEST($2::text[], $3::text[]) WITH ORDINALITY AS asked (beat, entry, index)
        JOIN beat ON beat.project_id = $1 AND beat.name = asked.beat
        JOIN monitor ON monitor.project_id = $1 AND monitor.beat_id = beat.id AND monitor.entry = asked.entry
        "#,
        project.0,
        beats,
        entries
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                usize::try_from(row.index - 1).unwrap_or(usize::MAX),
                MonitorId(row.id),
                PingId(row.ping_id),
            )
        })
        .collect())
}

/// Returns the tags of the monitor of a slug. None: the project has no such monitor.
///
/// # Errors
/// When the database is away.
pub async fn tags_of_slug(tx: &mut Tx, project: ProjectId, slug: &str) -> StoreResult<Option<Vec<String>>> {
    Ok(sqlx::query_scalar!(
        "SELECT tags FROM monitor WHERE project_id = $1 AND slug = $2",
        project.0,
        slug
    )
    .fetch_optional(tx.conn())
    .await?)
}
