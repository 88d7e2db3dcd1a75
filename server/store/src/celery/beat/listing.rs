//! The lists of a Beat: syncs in progress, emptied lists, and other Beats that list the same schedule.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{BeatId, ProjectId};
use uuid::Uuid;

use super::{Beat, Row};
use crate::{StoreResult, Tx};

/// Begins a sync, in which the monitors of a Beat follow a snapshot of its schedule or are deleted. An earlier sync then finds another id
/// ([`lock_in_sync`]), and ends. The caller holds the Beat's lock.
///
/// # Errors
/// When the database is away.
pub async fn begin_sync(tx: &mut Tx, project: ProjectId, id: BeatId, sync: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE beat SET sync_id = $3 WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        sync
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Locks the Beat of a name, if its monitors still follow this sync's snapshot.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock_in_sync(
    tx: &mut Tx,
    project: ProjectId,
    name: &str,
    sync: Uuid,
) -> StoreResult<Option<Beat>> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE project_id = $1 AND name = $2 AND sync_id = $3
        FOR UPDATE",
        project.0,
        name,
        sync
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Beat::try_from)
    .transpose()
}

/// Notes that a Beat's list has had no enabled entry since `at`. An earlier note stays: the same list sent again changes nothing.
///
/// # Errors
/// When the database is away.
pub async fn note_emptied(tx: &mut Tx, project: ProjectId, id: BeatId, at: DateTime<Utc>) -> StoreResult<()> {
    // Store the earlier time of both. The stored one may lie in the future, if the clock was set back since.
    sqlx::query!(
        "UPDATE beat SET emptied_at = least(emptied_at, $3) WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Clears the note of [`note_emptied`]: the list has an enabled entry again, or a person has confirmed that it has
/// none.
///
/// # Errors
/// When the database is away.
pub async fn forget_emptied(tx: &mut Tx, project: ProjectId, id: BeatId) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE beat SET emptied_at = NULL WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the time since which a Beat's list has had no enabled entry. None: it has some, or a person has confirmed
/// that it has none.
///
/// # Errors
/// When the database is away.
pub async fn emptied_at(tx: &mut Tx, project: ProjectId, id: BeatId) -> StoreResult<Option<DateTime<Utc>>> {
    let at = sqlx::query_scalar!(
        "SELECT emptied_at FROM beat WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(at.flatten())
}

/// Returns the names of a Beat's monitors that were retired at an instant or later: the first `limit` by name, and the number of all.
///
/// # Errors
/// When the database is away.
pub async fn retired_since(
    tx: &mut Tx,
    project: ProjectId,
    id: BeatId,
    at: DateTime<Utc>,
    limit: i64,
) -> StoreResult<(Vec<String>, i64)> {
    let rows = sqlx::query!(
        r#"
        SELECT name, count(*) OVER () AS "count!"
        FROM monitor
        WHERE project_id = $4 AND beat_id = $1 AND retired_at >= $2
        ORDER BY name
        LIMIT $3
        "#,
        id.0,
        at,
        limit,
        project.0
    )
    .fetch_all(tx.conn())
    .await?;
    let count = rows.first().map_or(0, |row| row.count);
    Ok((rows.into_iter().map(|row| row.name).collect(), count))
}

/// Returns the number of monitors of a Beat that are not retired. Leaves out the canary and Celery's own entries.
///
/// # Errors
/// When the database is away.
pub async fn watched(tx: &mut Tx, project: ProjectId, id: BeatId) -> StoreResult<usize> {
    let count = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!"
        FROM monitor
        WHERE project_id = $1 AND beat_id = $2 AND retired_at IS NULL AND entry <> 'deadbeat.canary' AND NOT starts_with(entry, 'celery.')
        "#,
        project.0,
        id.0
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// True if a process of another Beat of the project has listed this schedule since an instant.
///
/// # Errors
/// When the database is away.
pub async fn is_listed_elsewhere(
    tx: &mut Tx,
    project: ProjectId,
    id: BeatId,
    schedule: &str,
    since: DateTime<Utc>,
) -> StoreResult<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT 1 FROM beat
            WHERE project_id = $1 AND id <> $2
                AND jsonb_path_exists(incarnations, '$[*] ? (@.schedule == $schedule)', jsonb_build_object('schedule', $3::text))
                AND last_seen_at > $4
        ) AS "found!""#,
        project.0,
        id.0,
        schedule,
        since
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(found)
}
