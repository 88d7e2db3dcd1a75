//! Table `incident_member`: the monitors that are members of another subject's incident.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{IncidentId, MonitorId, ProjectId};
use deadbeat_domain::incident::SubjectKey;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// Adds monitors to the open incidents of other subjects, given as (subject, monitor). Returns (project, incident, monitor) for each monitor that
/// joined. The subjects of the others have no open incident.
///
/// The incidents stay locked until the commit, so that none can be resolved in between and miss these members.
///
/// # Errors
/// If the database is away.
pub async fn join(
    tx: &mut Tx,
    members: &[(SubjectKey, MonitorId)],
    now: DateTime<Utc>,
) -> StoreResult<Vec<(ProjectId, IncidentId, MonitorId)>> {
    let joined = sqlx::query!(
        "WITH open AS MATERIALIZED (
            SELECT project_id, id, subject_kind, subject_id
            FROM incident
            WHERE (project_id, subject_kind, subject_id) IN (SELECT * FROM UNNEST($5::uuid[], $1::text[], $2::uuid[]))
                AND resolved_at IS NULL
            ORDER BY id
            FOR SHARE
        )
        INSERT INTO incident_member (project_id, incident_id, monitor_id, joined_at)
        SELECT open.project_id, open.id, new.monitor_id, $4
        FROM UNNEST($5::uuid[], $1::text[], $2::uuid[], $3::uuid[]) AS new (project_id, subject_kind, subject_id, monitor_id)
        JOIN open USING (project_id, subject_kind, subject_id)
        ON CONFLICT (incident_id, monitor_id, project_id) DO UPDATE SET joined_at = incident_member.joined_at
        RETURNING project_id, incident_id, monitor_id",
        &column(members, |((_, kind, _), _)| kind.as_str().to_owned()),
        &column(members, |((.., subject), _)| *subject),
        &column(members, |(_, monitor)| monitor.0),
        now,
        &column(members, |((project, ..), _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(joined
        .into_iter()
        .map(|row| {
            let (project, incident) = (ProjectId(row.project_id), IncidentId(row.incident_id));
            (project, incident, MonitorId(row.monitor_id))
        })
        .collect())
}

/// Returns the members of a project's incidents, as (incident, monitor, name).
///
/// # Errors
/// If the database is away.
pub async fn members(
    reader: &Reader,
    project: ProjectId,
    ids: &[IncidentId],
) -> StoreResult<Vec<(IncidentId, MonitorId, String)>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT incident_id, monitor_id, monitor.name
        FROM incident_member JOIN monitor ON monitor.project_id = incident_member.project_id AND monitor.id = monitor_id
        WHERE incident_member.project_id = $1 AND incident_id = ANY($2)
        ORDER BY incident_id, monitor_id",
        project.0,
        &ids
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (IncidentId(row.incident_id), MonitorId(row.monitor_id), row.name))
        .collect())
}

/// The first monitors that an incident affects, and the number of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affected {
    /// The first monitors, at most as many as the caller wanted, in id order.
    pub first: Vec<(MonitorId, String)>,
    /// The number of all affected monitors.
    pub count: i64,
}

/// Returns the members of incidents for their alerts, at most `most` of each. Leaves out incidents without members.
///
/// # Errors
/// If the database is away.
pub async fn first_members(
    tx: &mut Tx,
    ids: &[(ProjectId, IncidentId)],
    most: i64,
) -> StoreResult<HashMap<IncidentId, Affected>> {
    let rows = sqlx::query!(
        r#"
        SELECT told.id AS "id!", member.monitor_id, member.name,
            (
                SELECT count(*) FROM incident_member
                WHERE incident_member.project_id = told.project_id AND incident_id = told.id
            ) AS "count!"
        FROM UNNEST($1::uuid[], $3::uuid[]) AS told (id, project_id)
        CROSS JOIN LATERAL (
            SELECT monitor_id, monitor.name
            FROM incident_member JOIN monitor ON monitor.project_id = incident_member.project_id AND monitor.id = monitor_id
            WHERE incident_member.project_id = told.project_id AND incident_id = told.id
            ORDER BY monitor_id
            LIMIT $2
        ) AS member
        ORDER BY told.id, member.monitor_id
        "#,
        &column(ids, |(_, id)| id.0),
        most,
        &column(ids, |(project, _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<IncidentId, Affected> = HashMap::new();
    for row in rows {
        let affected = found.entry(IncidentId(row.id)).or_default();
        affected.first.push((MonitorId(row.monitor_id), row.name));
        affected.count = row.count;
    }
    Ok(found)
}

/// Returns the monitors that Beats schedule and that are not retired, at most `most` of each. Leaves out Beats that have none.
///
/// # Errors
/// When the database is away.
pub async fn first_scheduled(
    tx: &mut Tx,
    beats: &[(ProjectId, Uuid)],
    most: i64,
) -> StoreResult<HashMap<Uuid, Affected>> {
    let rows = sqlx::query!(
        r#"
        SELECT beat.id AS "id!", scheduled.monitor_id, scheduled.name,
            (
                SELECT count(*) FROM monitor
                WHERE monitor.project_id = beat.project_id AND beat_id = beat.id AND status <> 'paused'
            ) AS "count!"
        FROM UNNEST($1::uuid[], $3::uuid[]) AS beat (id, project_id)
        CROSS JOIN LATERAL (
            SELECT id AS monitor_id, name
            FROM monitor
            WHERE monitor.project_id = beat.project_id AND beat_id = beat.id AND status <> 'paused'
            ORDER BY id
            LIMIT $2
        ) AS scheduled
        ORDER BY beat.id, scheduled.monitor_id
        "#,
        &column(beats, |(_, id)| *id),
        most,
        &column(beats, |(project, _)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<Uuid, Affected> = HashMap::new();
    for row in rows {
        let affected = found.entry(row.id).or_default();
        affected.first.push((MonitorId(row.monitor_id), row.name));
        affected.count = row.count;
    }
    Ok(found)
}
