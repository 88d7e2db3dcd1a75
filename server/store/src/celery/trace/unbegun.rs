//! Table `unbegun_run`: runs that Beat sent, and that no worker has received yet.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::limits;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// The most runs of a monitor that [`recent`] returns.
const RECENT: i64 = 64;

/// A run that, as far as the server knows, waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unbegun {
    /// The project.
    pub project_id: ProjectId,
    /// The client's run id.
    pub run_id: Uuid,
    /// The entry's monitor.
    pub monitor_id: MonitorId,
    /// When it was sent.
    pub published_at: DateTime<Utc>,
    /// When it must be checked next.
    pub check_after: DateTime<Utc>,
}

/// One of the newest runs of a monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    /// The run's monitor.
    pub monitor_id: MonitorId,
    /// When it was sent.
    pub published_at: DateTime<Utc>,
    /// True if a worker has reported anything about it.
    pub has_begun: bool,
}

/// Notes which runs wait, and which no longer do. A project has at most [`limits::UNBEGUN_RUNS`] notes; the slots of
/// further runs are judged nevertheless. The caller holds the locks of the runs' traces, or has just inserted them.
///
/// # Errors
/// If the database is away.
pub async fn note(tx: &mut Tx, waiting: &[Unbegun], begun: &[(ProjectId, Uuid)]) -> StoreResult<()> {
    if !begun.is_empty() {
        forget(tx, begun).await?;
    }
    if !waiting.is_empty() {
        sqlx::query!(
            "WITH room AS (
                SELECT asked.project_id, $6 - (
                    SELECT count(*) FROM (SELECT FROM unbegun_run WHERE unbegun_run.project_id = asked.project_id LIMIT $6) AS known
                ) AS places
                FROM (SELECT DISTINCT UNNEST($1::uuid[]) AS project_id) AS asked
            )
            INSERT INTO unbegun_run (project_id, run_id, monitor_id, published_at, check_after)
            SELECT new.project_id, run_id, monitor_id, published_at, check_after
            FROM (
                SELECT *, row_number() OVER (PARTITION BY project_id ORDER BY published_at) AS place
                FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[])
                    AS noted (project_id, run_id, monitor_id, published_at, check_after)
            ) AS new JOIN room ON room.project_id = new.project_id
            WHERE place <= places
            ON CONFLICT DO NOTHING",
            &column(waiting, |one| one.project_id.0),
            &column(waiting, |one| one.run_id),
            &column(waiting, |one| one.monitor_id.0),
            &column(waiting, |one| one.published_at),
            &column(waiting, |one| one.check_after),
            limits::UNBEGUN_RUNS
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// Returns the runs that must be checked now, at most `limit`. Takes the first run of each project before the second run of any. Locks nothing: a
/// writer of stages locks the trace before the note of its run, and the reverse order could deadlock.
///
/// # Errors
/// If the database is away.
pub async fn due(reader: &Reader, now: DateTime<Utc>, limit: i64) -> StoreResult<Vec<Unbegun>> {
    let rows = sqlx::query!(
        r#"SELECT project_id, run_id, monitor_id, published_at, check_after
        FROM (
            SELECT *, row_number() OVER (PARTITION BY project_id ORDER BY check_after) AS place
            FROM unbegun_run
            WHERE check_after <= $1
        ) AS due
        ORDER BY place
        LIMIT $2"#,
        now,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Unbegun {
            project_id: ProjectId(row.project_id),
            run_id: row.run_id,
            monitor_id: MonitorId(row.monitor_id),
            published_at: row.published_at,
            check_after: row.check_after,
        })
        .collect())
}

/// Writes when these runs must be checked next.
///
/// # Errors
/// If the database is away.
pub async fn put_off(tx: &mut Tx, runs: &[Unbegun]) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE unbegun_run
        SET check_after = new.check_after
        FROM UNNEST($1::uuid[], $2::uuid[], $3::timestamptz[]) AS new (project_id, run_id, check_after)
        WHERE unbegun_run.project_id = new.project_id AND unbegun_run.run_id = new.run_id",
        &column(runs, |one| one.project_id.0),
        &column(runs, |one| one.run_id),
        &column(runs, |one| one.check_after),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes notes.
///
/// # Errors
/// When the database is away.
pub async fn forget(tx: &mut Tx, runs: &[(ProjectId, Uuid)]) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM unbegun_run
        USING UNNEST($1::uuid[], $2::uuid[]) AS old (project_id, run_id)
        WHERE unbegun_run.project_id = old.project_id AND unbegun_run.run_id = old.run_id",
        &column(runs, |(project, _)| project.0),
        &column(runs, |(_, run)| *run),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the newest runs of each of these monitors, in the order in which they were sent.
///
/// # Errors
/// When the database is away.
pub async fn recent(tx: &mut Tx, monitors: &[(ProjectId, MonitorId)]) -> StoreResult<Vec<Recent>> {
    let rows = sqlx::query!(
        r#"SELECT asked.id AS "monitor_id!", newest.published_at AS "published_at!", newest.has_begun AS "has_begun!"
        FROM UNNEST($1::uuid[], $3::uuid[]) AS asked (id, project_id)
        CROSS JOIN LATERAL (
            SELECT published_at, state NOT IN ('published', 'lost') OR received_at IS NOT NULL OR started_at IS NOT NULL AS has_begun
            FROM trace
            -- Not `=`: before the table is analyzed, PostgreSQL would read the index of the whole project beside the monitor's.
            WHERE monitor_id = asked.id AND trace.project_id IS NOT DISTINCT FROM asked.project_id
            ORDER BY heard_first_at DESC
            LIMIT $2
        ) AS newest
        WHERE newest.published_at IS NOT NULL
        ORDER BY asked.id, newest.published_at"#,
        &column(monitors, |(_, id)| id.0),
        RECENT,
        &column(monitors, |(project, _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Recent {
            monitor_id: MonitorId(row.monitor_id),
            published_at: row.published_at,
            has_begun: row.has_begun,
        })
        .collect())
}
