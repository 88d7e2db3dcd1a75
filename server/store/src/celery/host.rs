//! Table `host_part`: the Beats and workers in the open incidents about hosts. This module also finds the Beats and
//! workers that run on one machine.

pub mod open;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::incarnation;
use deadbeat_domain::celery::host::Part;
use deadbeat_domain::celery::worker::incarnation as worker_incarnation;
use deadbeat_domain::ids::{BeatId, IncidentId, MonitorId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::span;
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::incident::member::Affected;
use crate::monitor::batch::column;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A Beat or a worker on its machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Resident {
    /// Its kind: Beat or worker.
    pub kind: SubjectKind,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The Celery application's name.
    pub app: String,
    /// Its name.
    pub name: String,
    /// The argument of `celery -A` where it runs.
    pub typed: String,
    /// The name of its host.
    pub host: Option<String>,
    /// The machine of its last report, in one of the machine's starts (boot id). A machine that does not report a boot
    /// id is identified by its name.
    pub machine: String,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// Its status.
    pub status: Status,
    /// The state that the rules work on.
    pub part: Part,
}

/// A Beat or a worker of an incident about a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Linked {
    /// Its id.
    pub id: Uuid,
    /// The time of its last report before the host was found lost.
    pub heard_at: DateTime<Utc>,
    /// When it reported again. None: it has not.
    pub back_at: Option<DateTime<Utc>>,
    /// Its present state. None: it signed off, or was deleted.
    pub resident: Option<Resident>,
}

struct Row {
    id: Uuid,
    kind: String,
    project_id: Uuid,
    app: String,
    name: String,
    typed: String,
    host: Option<String>,
    machine: String,
    queues: Vec<String>,
    status: String,
    heard_at: DateTime<Utc>,
    period_seconds: f64,
    grace_seconds: f64,
    incarnations: Value,
}

/// A Beat whose reports began this shortly after its start was not silent: it had only just started.
const BEGINS: TimeDelta = TimeDelta::seconds(15);

/// Returns the last stretch without its reports. None: there was none, or the stored list cannot be read.
fn gap(is_beat: bool, incarnations: Value) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    if is_beat {
        let known: Vec<incarnation::Incarnation> = serde_json::from_value(incarnations).ok()?;
        let last = known.into_iter().max_by_key(|one| one.seen_at)?;
        let started_at = last.started_at?;
        return (last.since - started_at > BEGINS).then_some((started_at, last.since));
    }
    let known: Vec<worker_incarnation::Incarnation> = serde_json::from_value(incarnations).ok()?;
    known
        .into_iter()
        .filter_map(|one| one.gap)
        .max_by_key(|(_, to)| *to)
}

impl TryFrom<Row> for Resident {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            kind: SubjectKind::parse(&row.kind)
                .ok_or_else(|| StoreError::Corrupt(format!("part of a host: {}", row.kind)))?,
            project_id: ProjectId(row.project_id),
            app: row.app,
            name: row.name,
            typed: row.typed,
            host: row.host,
            machine: row.machine,
            queues: row.queues,
            status: Status::parse(&row.status)
                .ok_or_else(|| StoreError::Corrupt(format!("status {}", row.status)))?,
            part: Part {
                id: row.id,
                heard_at: row.heard_at,
                period: span(row.period_seconds),
                grace: span(row.grace_seconds),
                gap: gap(row.kind == "beat", row.incarnations),
            },
        })
    }
}

/// Notes the machine, in one of its starts, from which a Beat reports.
///
/// # Errors
/// If the database is away.
pub async fn note_beat(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    boot_id: Option<&str>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE beat SET boot_id = $3 WHERE project_id = $1 AND id = $2 AND boot_id IS DISTINCT FROM $3",
        project.0,
        beat.0,
        boot_id
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// `$1` is an array of projects.
macro_rules! residents {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"
            WITH resident AS NOT MATERIALIZED (
                SELECT id, 'worker' AS kind, project_id, app, name, coalesce(snapshot->>'project', app) AS typed, snapshot->>'host' AS host,
                    machine, queues, status, last_seen_at AS heard_at,
                    period_seconds, grace_seconds, incarnations
                FROM worker
                WHERE project_id = ANY($1) AND status <> 'paused' AND coalesce(snapshot->>'state', 'running') = 'running'
                UNION ALL
                SELECT id, 'beat' AS kind, project_id, name AS app, name, coalesce(project_word, name) AS typed, host,
                    coalesce(nullif(boot_id, ''), 'named ' || host) AS machine, '{}'::text[] AS queues, status,
                    greatest(last_seen_at, hung_at) AS heard_at, period_seconds, grace_seconds, incarnations
                FROM beat
                WHERE project_id = ANY($1) AND status <> 'paused'
            )
            SELECT id AS "id!", kind AS "kind!", project_id AS "project_id!", app AS "app!", name AS "name!", typed AS "typed!", host,
                machine AS "machine!", queues AS "queues!", status AS "status!", heard_at AS "heard_at!", period_seconds AS "period_seconds!",
                grace_seconds AS "grace_seconds!", incarnations AS "incarnations!"
            FROM resident
            WHERE machine IS NOT NULL AND heard_at IS NOT NULL AND
            "# + $tail
            $(, $argument)*
        )
    };
}

fn each(rows: Vec<Row>) -> Vec<Resident> {
    // Leave out rows that cannot be read.
    rows.into_iter()
        .filter_map(|row| Resident::try_from(row).ok())
        .collect()
}

/// Returns the Beats and workers on the machines of these Beats and workers, including themselves. Leaves out those that have signed off.
///
/// # Errors
/// If the database is away.
pub async fn beside(tx: &mut Tx, projects: &[ProjectId], parts: &[Uuid]) -> StoreResult<Vec<Resident>> {
    let rows = residents!(
        // Pass an array, so that PostgreSQL uses the indexes of both tables. If two projects name one machine, the
        // answer has both.
        "machine = ANY (ARRAY (
            SELECT machine FROM worker WHERE project_id = ANY($1) AND id = ANY($2)
            UNION
            SELECT coalesce(nullif(boot_id, ''), 'named ' || host) FROM beat WHERE project_id = ANY($1) AND id = ANY($2)
        ))
        ORDER BY kind, name, id",
        &column(projects, |project| project.0),
        parts
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows))
}

/// True if a worker received a run of one of these Beats, and the run was both sent and first reported after the
/// instant given for that Beat.
///
/// # Errors
/// If the database is away.
pub async fn has_sent_since(
    tx: &mut Tx,
    project: ProjectId,
    beats: &[(Uuid, DateTime<Utc>)],
) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT 1
            FROM UNNEST($1::uuid[], $2::timestamptz[]) AS asked (beat, since)
            -- A run that has begun has pinged its monitor: of thousands few are left, and the newest show it.
            CROSS JOIN LATERAL (
                SELECT id
                FROM monitor
                WHERE beat_id = asked.beat AND project_id = $3 AND last_ping_at > asked.since
                ORDER BY last_ping_at DESC
                LIMIT 1000
            ) AS pinged
            CROSS JOIN LATERAL (
                SELECT 1
                FROM trace
                WHERE monitor_id = pinged.id AND project_id IS NOT DISTINCT FROM $3 AND heard_first_at > asked.since AND published_at > asked.since
                    AND (received_at IS NOT NULL OR started_at IS NOT NULL)
                LIMIT 1
            ) AS taken
        ) AS "is_sent!"
        "#,
        &column(beats, |(id, _)| *id),
        &column(beats, |(_, since)| *since),
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns the first monitors, at most `most`, that these Beats schedule or that have open runs in these workers, and the number of all.
///
/// # Errors
/// If the database is away.
pub async fn first_affected(
    tx: &mut Tx,
    project: ProjectId,
    beats: &[Uuid],
    workers: &[Uuid],
    most: i64,
) -> StoreResult<Affected> {
    let rows = sqlx::query!(
        r#"
        WITH affected AS MATERIALIZED (
            SELECT id FROM monitor WHERE project_id = $1 AND beat_id = ANY($2) AND status <> 'paused'
            UNION
            SELECT monitor.id
            FROM run JOIN monitor ON monitor.project_id = run.project_id AND monitor.id = run.monitor_id
            WHERE run.project_id = $1 AND run.status = 'open' AND monitor.status <> 'paused' AND run.incarnation = ANY (ARRAY (
                SELECT (incarnation.id #>> '{}')::uuid
                FROM worker CROSS JOIN LATERAL jsonb_path_query(incarnations, '$[*].id') AS incarnation (id)
                WHERE project_id = $1 AND worker.id = ANY($3)
            ))
        )
        SELECT id AS "id!", name AS "name!", (SELECT count(*) FROM affected) AS "count!"
        FROM (SELECT id FROM affected ORDER BY id LIMIT $4) AS first JOIN monitor USING (id)
        WHERE project_id = $1
        ORDER BY id
        "#,
        project.0,
        beats,
        workers,
        most
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Affected {
        count: rows.first().map_or(0, |row| row.count),
        first: rows
            .into_iter()
            .map(|row| (MonitorId(row.id), row.name))
            .collect(),
    })
}

/// Returns the hosts with an open incident that these Beats and workers are part of, by part. For a page.
///
/// # Errors
/// If the database is away.
pub async fn read_of_parts(
    reader: &Reader,
    project: ProjectId,
    parts: &[Uuid],
) -> StoreResult<HashMap<Uuid, Uuid>> {
    hosts_of(reader.pool(), project, parts).await
}

/// Returns the same as [`read_of_parts`], in a transaction.
///
/// # Errors
/// When the database is away.
pub async fn of_parts(tx: &mut Tx, project: ProjectId, parts: &[Uuid]) -> StoreResult<HashMap<Uuid, Uuid>> {
    if parts.is_empty() {
        return Ok(HashMap::new());
    }
    hosts_of(tx.conn(), project, parts).await
}

async fn hosts_of(
    executor: impl PgExecutor<'_>,
    project: ProjectId,
    parts: &[Uuid],
) -> StoreResult<HashMap<Uuid, Uuid>> {
    let rows = sqlx::query!(
        "SELECT part_id, subject_id
        FROM host_part JOIN incident ON incident.project_id = host_part.project_id AND incident.id = incident_id
        WHERE host_part.project_id = $1 AND part_id = ANY($2) AND back_at IS NULL AND resolved_at IS NULL AND subject_kind = 'host'
        ORDER BY opened_at",
        project.0,
        parts
    )
    .fetch_all(executor)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.part_id, row.subject_id))
        .collect())
}

/// Adds parts to an open incident about a host, which stays locked until the commit. False: the incident is resolved.
///
/// # Errors
/// If the database is away.
pub async fn link(tx: &mut Tx, project: ProjectId, host: Uuid, parts: &[Resident]) -> StoreResult<bool> {
    let linked = sqlx::query_scalar!(
        "WITH open AS MATERIALIZED (
            SELECT project_id, id FROM incident WHERE project_id = $5 AND subject_kind = 'host' AND subject_id = $1 AND resolved_at IS NULL FOR SHARE
        )
        INSERT INTO host_part (project_id, incident_id, part_id, part_kind, heard_at)
        SELECT open.project_id, open.id, new.part_id, new.part_kind, new.heard_at
        FROM open, UNNEST($2::uuid[], $3::text[], $4::timestamptz[]) AS new (part_id, part_kind, heard_at)
        ON CONFLICT (incident_id, part_id, project_id) DO UPDATE SET heard_at = excluded.heard_at, back_at = NULL
        RETURNING part_id",
        host,
        &column(parts, |one| one.part.id),
        &column(parts, |one| one.kind.as_str().to_owned()),
        &column(parts, |one| one.part.heard_at),
        project.0
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(!linked.is_empty())
}

/// Returns the parts of an incident about a host, Beats first.
///
/// # Errors
/// When the database is away.
pub async fn parts_of(tx: &mut Tx, project: ProjectId, incident: IncidentId) -> StoreResult<Vec<Linked>> {
    let linked = sqlx::query!(
        "SELECT part_id, heard_at, back_at
        FROM host_part
        WHERE project_id = $2 AND incident_id = $1
        ORDER BY part_kind, part_id",
        incident.0,
        project.0
    )
    .fetch_all(tx.conn())
    .await?;
    let ids: Vec<Uuid> = linked.iter().map(|row| row.part_id).collect();
    let rows = residents!("id = ANY($2) ORDER BY kind, name, id", &[project.0], &ids)
        .fetch_all(tx.conn())
        .await?;
    let mut residents: HashMap<Uuid, Resident> =
        each(rows).into_iter().map(|one| (one.part.id, one)).collect();
    Ok(linked
        .into_iter()
        .map(|row| Linked {
            id: row.part_id,
            heard_at: row.heard_at,
            back_at: row.back_at,
            resident: residents.remove(&row.part_id),
        })
        .collect())
}

/// Notes that parts report again.
///
/// # Errors
/// When the database is away.
pub async fn note_back(
    tx: &mut Tx,
    project: ProjectId,
    incident: IncidentId,
    parts: &[Uuid],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE host_part
        SET back_at = $3
        WHERE project_id = $4 AND incident_id = $1 AND part_id = ANY($2) AND back_at IS NULL",
        incident.0,
        parts,
        now,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
