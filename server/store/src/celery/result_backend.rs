//! Reports of processes about their application's result backend. Workers report it in their snapshots; Beat's report
//! has a column of its own.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{BeatId, BrokerId, ProjectId, WorkerId};
use serde_json::Value;

use crate::{Reader, StoreResult, Tx};

/// The most processes of one application whose reports are read.
const PROCESSES: i64 = 1_000;

/// The report of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// The worker. None: the process is Beat.
    pub worker: Option<WorkerId>,
    /// Its name.
    pub name: String,
    /// The report.
    pub report: Value,
}

/// An open incident about a result backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its subject.
    pub id: BrokerId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The backend's address.
    pub address: String,
    /// Its application. None: the application was deleted.
    pub app: Option<String>,
    /// When the incident opened.
    pub opened_at: DateTime<Utc>,
}

/// Returns the last report of a Beat.
///
/// # Errors
/// If the database is away.
pub async fn of_beat(tx: &mut Tx, project: ProjectId, beat: BeatId) -> StoreResult<Option<Value>> {
    let report = sqlx::query_scalar!(
        "SELECT result_backend FROM beat WHERE project_id = $1 AND id = $2",
        project.0,
        beat.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(report.flatten())
}

/// Writes a Beat's report. The caller holds the Beat's lock.
///
/// # Errors
/// If the database is away.
pub async fn note(tx: &mut Tx, project: ProjectId, beat: BeatId, report: Option<&Value>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE beat SET result_backend = $3 WHERE project_id = $1 AND id = $2",
        project.0,
        beat.0,
        report
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the reports of an application's processes, those with a fault first. Leaves out processes that have missed two of their reports.
///
/// # Errors
/// If the database is away.
pub async fn reports(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    now: DateTime<Utc>,
) -> StoreResult<Vec<Process>> {
    let rows = sqlx::query!(
        r#"
        SELECT worker_id AS "worker_id?", name AS "name!", report AS "report!"
        FROM (
            SELECT id AS worker_id, name, snapshot -> 'result_backend' AS report
            FROM worker
            WHERE project_id = $1 AND app = $2 AND status <> 'paused'
                AND last_seen_at >= $3::timestamptz - make_interval(secs => 2.5 * period_seconds + 5)
            UNION ALL
            SELECT NULL, name, result_backend
            FROM beat
            WHERE project_id = $1 AND name = $2
                AND greatest(last_seen_at, hung_at) >= $3::timestamptz - make_interval(secs => 2.5 * period_seconds + 5)
        ) AS process
        WHERE jsonb_typeof(report) = 'object'
        ORDER BY report ->> 'operation' IS NULL, name
        LIMIT $4
        "#,
        project.0,
        app,
        now,
        PROCESSES
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Process {
            worker: row.worker_id.map(WorkerId),
            name: row.name,
            report: row.report,
        })
        .collect())
}

/// Returns the open incident about a result backend.
///
/// # Errors
/// If the database is away.
pub async fn open_about(tx: &mut Tx, project: ProjectId, id: BrokerId) -> StoreResult<Option<Open>> {
    Ok(open(tx, project, Some(id)).await?.into_iter().next())
}

/// Returns the open incidents of a project about result backends. Each application of the project has at most one.
///
/// # Errors
/// If the database is away.
pub async fn open_of(tx: &mut Tx, project: ProjectId) -> StoreResult<Vec<Open>> {
    open(tx, project, None).await
}

/// Returns when the last incident about a result backend opened and ended. None: it ended before the given instant, or there was none.
///
/// # Errors
/// If the database is away.
pub async fn last_outage(
    tx: &mut Tx,
    project: ProjectId,
    id: BrokerId,
    after: DateTime<Utc>,
) -> StoreResult<Option<(DateTime<Utc>, Option<DateTime<Utc>>)>> {
    let row = sqlx::query!(
        "SELECT opened_at, resolved_at
        FROM incident
        WHERE project_id = $1 AND subject_kind = 'result_backend' AND subject_id = $2 AND (resolved_at > $3 OR resolved_at IS NULL)
        ORDER BY resolved_at DESC NULLS FIRST
        LIMIT 1",
        project.0,
        id.0,
        after
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| (row.opened_at, row.resolved_at)))
}

/// Returns the next projects, in id order, that have an open incident about a result backend.
///
/// # Errors
/// If the database is away.
pub async fn projects_after(
    reader: &Reader,
    after: Option<ProjectId>,
    limit: i64,
) -> StoreResult<Vec<ProjectId>> {
    let projects = sqlx::query_scalar!(
        "SELECT DISTINCT project_id
        FROM incident
        WHERE subject_kind = 'result_backend' AND resolved_at IS NULL AND ($1::uuid IS NULL OR project_id > $1)
        ORDER BY project_id
        LIMIT $2",
        after.map(|id| id.0),
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(projects.into_iter().map(ProjectId).collect())
}

async fn open(tx: &mut Tx, project: ProjectId, only: Option<BrokerId>) -> StoreResult<Vec<Open>> {
    let rows = sqlx::query!(
        r#"
        SELECT subject_id, subject_name, opened_at, broker.app AS "app?"
        FROM incident LEFT JOIN broker ON broker.project_id = incident.project_id AND broker.id = subject_id
        WHERE incident.project_id = $1 AND subject_kind = 'result_backend' AND resolved_at IS NULL
            AND ($2::uuid IS NULL OR subject_id = $2)
        ORDER BY subject_id
        "#,
        project.0,
        only.map(|id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Open {
            id: BrokerId(row.subject_id),
            project_id: project,
            address: row.subject_name,
            app: row.app,
            opened_at: row.opened_at,
        })
        .collect())
}
