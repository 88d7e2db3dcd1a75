//! Column `monitor.listed_by`: which lineages of a Beat list a monitor's entry, as bits.

use std::collections::HashMap;

use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_domain::celery::beat::lineage::Bits;
use deadbeat_domain::ids::{BeatId, MonitorId, ProjectId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// The monitors whose entries are listed by exactly these lineages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The lineages.
    pub by: Bits,
    /// The number of monitors.
    pub count: i64,
    /// The first few names of entries.
    pub names: Vec<String>,
}

fn bits(stored: i16) -> Bits {
    u8::try_from(stored).unwrap_or(0)
}

/// Counts the monitors of a Beat that are not retired, by the lineages that list them. Leaves out the canary and Celery's own entries. If `entries`
/// is given, counts only these.
///
/// # Errors
/// When the database is away.
pub async fn census(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    entries: Option<&[String]>,
) -> StoreResult<Vec<Listed>> {
    let rows = sqlx::query!(
        r#"SELECT listed_by, count(*) AS "count!", (array_agg(entry ORDER BY entry))[1:5] AS "names!: Vec<String>"
        FROM monitor
        WHERE project_id = $3 AND beat_id = $1 AND retired_at IS NULL AND entry <> 'deadbeat.canary' AND NOT starts_with(entry, 'celery.')
            AND ($2::text[] IS NULL OR entry = ANY($2))
        GROUP BY listed_by"#,
        beat.0,
        entries,
        project.0
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Listed {
            by: bits(row.listed_by),
            count: row.count,
            names: row.names,
        })
        .collect())
}

/// Notes that a lineage lists these entries.
///
/// # Errors
/// When the database is away.
pub async fn mark(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    entries: &[String],
    lineage: Bits,
) -> StoreResult<()> {
    // The lineages that listed a monitor before it was retired no longer count.
    sqlx::query!(
        "UPDATE monitor
        SET listed_by = CASE WHEN retired_at IS NULL THEN listed_by | $3 ELSE $3 END
        WHERE project_id = $4 AND beat_id = $1 AND entry = ANY($2)
            AND (listed_by & $3 = 0 OR (retired_at IS NOT NULL AND listed_by <> $3))",
        beat.0,
        entries,
        i16::from(lineage),
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that a lineage lists no entries other than `listed`. Changes only entries that another lineage lists, too:
/// these stay with that lineage.
///
/// # Errors
/// When the database is away.
pub async fn leave(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    listed: &[String],
    lineage: Bits,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE monitor
        SET listed_by = listed_by & ~$3::smallint
        WHERE project_id = $4 AND beat_id = $1 AND retired_at IS NULL AND entry NOT IN (SELECT * FROM UNNEST($2::text[]))
            AND listed_by & $3 <> 0 AND listed_by & ~$3::smallint <> 0",
        beat.0,
        listed,
        i16::from(lineage),
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that these lineages list nothing any more. Changes at most `limit` monitors, and returns how many it changed.
///
/// # Errors
/// When the database is away.
pub async fn clear(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    lineages: Bits,
    limit: i64,
) -> StoreResult<u64> {
    let done = sqlx::query!(
        "UPDATE monitor
        SET listed_by = listed_by & ~$2::smallint
        WHERE project_id = $4 AND id IN (
            SELECT id FROM monitor WHERE project_id = $4 AND beat_id = $1 AND listed_by & $2 <> 0 ORDER BY id LIMIT $3 FOR UPDATE
        )",
        beat.0,
        i16::from(lineages),
        limit,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Returns the lineages that list these monitors.
///
/// # Errors
/// When the database is away.
pub async fn of_monitors(
    tx: &mut Tx,
    monitors: &[(ProjectId, MonitorId)],
) -> StoreResult<HashMap<MonitorId, Bits>> {
    let rows = sqlx::query!(
        "SELECT id, listed_by FROM monitor WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(monitors, |(project, _)| project.0),
        &column(monitors, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.id), bits(row.listed_by)))
        .collect())
}

/// Returns the number of monitors of a Beat that are not retired and that no other lineage lists. Leaves out the canary and Celery's own entries.
///
/// # Errors
/// When the database is away.
pub async fn watched_by(tx: &mut Tx, project: ProjectId, beat: BeatId, lineage: Bits) -> StoreResult<usize> {
    let count = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!"
        FROM monitor
        WHERE project_id = $3 AND beat_id = $1 AND retired_at IS NULL AND entry <> 'deadbeat.canary' AND NOT starts_with(entry, 'celery.')
            AND listed_by & ~$2::smallint = 0
        "#,
        beat.0,
        i16::from(lineage),
        project.0
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Returns the processes that report as these Beats.
///
/// # Errors
/// When the database is away.
pub async fn of_beats(
    tx: &mut Tx,
    beats: &[(ProjectId, BeatId)],
) -> StoreResult<HashMap<BeatId, Vec<Incarnation>>> {
    let rows = sqlx::query!(
        "SELECT id, incarnations
        FROM beat
        WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[])) AND incarnations -> 0 IS NOT NULL",
        &column(beats, |(project, _)| project.0),
        &column(beats, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    // The next report writes an unreadable list anew.
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                BeatId(row.id),
                serde_json::from_value(row.incarnations).unwrap_or_default(),
            )
        })
        .collect())
}
