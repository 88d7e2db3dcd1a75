//! Tables `incident` and `incident_member`.

mod acknowledgement;
mod flapping;
mod long_down;
pub mod member;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{IncidentId, MonitorKey, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::incident::{Fact, Repair, Subject, SubjectKey, SubjectKind};
use serde_json::Value;
use uuid::Uuid;

use crate::error::each;
use crate::monitor::batch::column;
use crate::page::Page;

use crate::{Reader, StoreError, StoreResult, Tx, Unreadable};
pub use acknowledgement::acknowledge;
pub use flapping::end_flapping;
pub use long_down::claim_long_down;

/// An incident as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its subject.
    pub subject: Subject,
    /// Its cause.
    pub cause: Cause,
    /// How urgent it is.
    pub severity: Severity,
    /// The fault in one sentence.
    pub summary: String,
    /// The facts that support the cause.
    pub evidence: Vec<Fact>,
    /// How to repair the fault.
    pub repair: Vec<Repair>,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// When it was resolved.
    pub resolved_at: Option<DateTime<Utc>>,
    /// When a person acknowledged it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Who acknowledged it, in words. None: nobody did, or an older version did not note the name.
    pub acknowledged_by: Option<String>,
    /// When the next reminder is due.
    pub remind_at: Option<DateTime<Utc>>,
    /// True if nobody observed the fault: the verdicts of its members name the subject.
    pub is_inferred: bool,
    /// Its monitor flaps: it stays open while the status changes.
    pub is_flapping: bool,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    subject_kind: String,
    subject_id: Uuid,
    subject_name: String,
    cause: String,
    summary: String,
    evidence: Value,
    repair: Value,
    opened_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    acknowledged_at: Option<DateTime<Utc>>,
    acknowledged_by: Option<String>,
    remind_at: Option<DateTime<Utc>>,
    inferred: bool,
    severity: Option<String>,
    flapping: bool,
}

impl TryFrom<Row> for Incident {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("incident {}: {what}", row.id));
        let cause = Cause::parse(&row.cause).ok_or_else(|| corrupt("cause"))?;
        Ok(Self {
            id: IncidentId(row.id),
            project_id: ProjectId(row.project_id),
            subject: Subject {
                kind: SubjectKind::parse(&row.subject_kind).ok_or_else(|| corrupt("subject_kind"))?,
                id: row.subject_id,
                name: row.subject_name.clone(),
            },
            cause,
            severity: row
                .severity
                .as_deref()
                .and_then(Severity::parse)
                .unwrap_or(cause.severity()),
            evidence: serde_json::from_value(row.evidence.clone()).map_err(|_| corrupt("evidence"))?,
            repair: serde_json::from_value(row.repair.clone()).map_err(|_| corrupt("repair"))?,
            summary: row.summary,
            opened_at: row.opened_at,
            resolved_at: row.resolved_at,
            acknowledged_at: row.acknowledged_at,
            acknowledged_by: row.acknowledged_by,
            remind_at: row.remind_at,
            is_inferred: row.inferred,
            is_flapping: row.flapping,
        })
    }
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at, resolved_at,
                acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping
            FROM incident
            " + $tail
            $(, $argument)*
        )
    };
}

/// Opens incidents, and returns those that were opened. Skips an incident whose subject has an open one already.
///
/// # Errors
/// If the database is away.
pub async fn open(tx: &mut Tx, incidents: &[Incident]) -> StoreResult<Vec<IncidentId>> {
    let json = |value: Result<Value, serde_json::Error>| {
        value.map_err(|error| StoreError::Corrupt(error.to_string()))
    };
    let evidence: Vec<Value> = incidents
        .iter()
        .map(|incident| json(serde_json::to_value(&incident.evidence)))
        .collect::<StoreResult<_>>()?;
    let repair: Vec<Value> = incidents
        .iter()
        .map(|incident| json(serde_json::to_value(&incident.repair)))
        .collect::<StoreResult<_>>()?;
    let opened = sqlx::query_scalar!(
        "INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at,
            remind_at, inferred, severity, flapping)
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::jsonb[],
            $9::jsonb[], $10::timestamptz[], $11::timestamptz[], $12::bool[], $13::text[], $14::bool[])
        ON CONFLICT (subject_kind, subject_id, project_id) WHERE resolved_at IS NULL DO NOTHING
        RETURNING id",
        &column(incidents, |incident| incident.id.0),
        &column(incidents, |incident| incident.project_id.0),
        &column(incidents, |incident| incident.subject.kind.as_str().to_owned()),
        &column(incidents, |incident| incident.subject.id),
        &column(incidents, |incident| incident.subject.name.clone()),
        &column(incidents, |incident| incident.cause.as_str().to_owned()),
        &column(incidents, |incident| incident.summary.clone()),
        &evidence,
        &repair,
        &column(incidents, |incident| incident.opened_at),
        &column(incidents, |incident| incident.remind_at) as &[Option<DateTime<Utc>>],
        &column(incidents, |incident| incident.is_inferred),
        &column(incidents, |incident| incident.severity.as_str().to_owned()),
        &column(incidents, |incident| incident.is_flapping),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(opened.into_iter().map(IncidentId).collect())
}

/// Resolves the open incidents about subjects, each at its time. `subjects` must name no subject twice. Skips subjects
/// without an open incident. Also resolves an incident that cannot be read: while that one is open, its subject could
/// not get another one.
///
/// # Errors
/// If the database is away.
pub async fn resolve(
    tx: &mut Tx,
    subjects: &[(SubjectKey, DateTime<Utc>)],
) -> StoreResult<Vec<Result<Incident, Unreadable>>> {
    let rows = sqlx::query_as!(
        Row,
        "UPDATE incident
        SET resolved_at = greatest(opened_at, over.at), remind_at = NULL
        FROM UNNEST($1::text[], $2::uuid[], $3::timestamptz[], $4::uuid[]) AS over (kind, id, at, project_id)
        WHERE incident.project_id = over.project_id AND subject_kind = over.kind AND subject_id = over.id AND resolved_at IS NULL
        RETURNING incident.id, incident.project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at,
            resolved_at, acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping",
        &column(subjects, |((_, kind, _), _)| kind.as_str().to_owned()),
        &column(subjects, |((.., id), _)| *id),
        &column(subjects, |(_, at)| *at),
        &column(subjects, |((project, ..), _)| project.0),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Notes that the faults of these subjects were observed. Their inferred incidents now end when the observed faults
/// end.
///
/// # Errors
/// If the database is away.
pub async fn note_seen(tx: &mut Tx, subjects: &[SubjectKey]) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE incident SET inferred = false
        WHERE inferred AND resolved_at IS NULL
            AND (project_id, subject_kind, subject_id) IN (SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::uuid[]))",
        &column(subjects, |(project, ..)| project.0),
        &column(subjects, |(_, kind, _)| kind.as_str().to_owned()),
        &column(subjects, |(.., id)| *id)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends inferred incidents without a member that is still down because of them. With `monitors`, it considers only
/// incidents that have one of these as a member; otherwise all.
///
/// # Errors
/// If the database is away.
pub async fn settle_inferred(
    tx: &mut Tx,
    monitors: Option<&[MonitorKey]>,
    now: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Result<Incident, Unreadable>>> {
    let projects: Option<Vec<Uuid>> = monitors.map(|keys| column(keys, |(project, _)| project.0));
    let monitors: Option<Vec<Uuid>> = monitors.map(|keys| column(keys, |(_, id)| id.0));
    // Lock first, then read. If two members recover at the same time, the second transaction sees the first one's
    // member as up.
    let held = sqlx::query!(
        "SELECT project_id, id
        FROM incident
        WHERE inferred AND resolved_at IS NULL
            AND ($1::uuid[] IS NULL OR (project_id, id) IN (
                SELECT incident_member.project_id, incident_id
                FROM UNNEST($1, $3::uuid[]) AS back (monitor_id, project_id)
                    JOIN incident_member
                        ON incident_member.project_id = back.project_id AND incident_member.monitor_id = back.monitor_id
            ))
        ORDER BY id
        LIMIT $2
        FOR UPDATE",
        monitors.as_deref(),
        limit,
        projects.as_deref()
    )
    .fetch_all(tx.conn())
    .await?;
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        Row,
        "UPDATE incident
        SET resolved_at = greatest(opened_at, $2), remind_at = NULL
        WHERE (project_id, id) IN (SELECT * FROM UNNEST($3::uuid[], $1::uuid[])) AND NOT EXISTS (
            SELECT 1
            FROM incident_member JOIN monitor ON monitor.project_id = incident_member.project_id AND monitor.id = monitor_id
            WHERE incident_member.project_id = incident.project_id AND incident_id = incident.id AND monitor.status = 'down'
                AND alarm IS DISTINCT FROM 'bad'
                AND (alarm = 'good' OR NOT EXISTS (
                    SELECT 1 FROM incident own
                    WHERE own.project_id = monitor.project_id AND own.subject_kind = 'monitor' AND own.subject_id = monitor.id
                        AND own.resolved_at IS NULL
                ))
        )
        RETURNING id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at,
            resolved_at, acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping",
        &column(&held, |row| row.id),
        now,
        &column(&held, |row| row.project_id)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Returns those of these subjects of a project that have an open incident.
///
/// # Errors
/// If the database is away.
pub async fn subjects_open(
    tx: &mut Tx,
    project: ProjectId,
    subjects: &[(SubjectKind, Uuid)],
) -> StoreResult<Vec<(SubjectKind, Uuid)>> {
    let rows = sqlx::query!(
        "SELECT subject_kind, subject_id
        FROM incident
        WHERE project_id = $3 AND (subject_kind, subject_id) IN (SELECT * FROM UNNEST($1::text[], $2::uuid[])) AND resolved_at IS NULL",
        &column(subjects, |(kind, _)| kind.as_str().to_owned()),
        &column(subjects, |(_, id)| *id),
        project.0
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((SubjectKind::parse(&row.subject_kind)?, row.subject_id)))
        .collect())
}

/// True if a subject has an open incident with this cause.
///
/// # Errors
/// If the database is away.
pub async fn is_open(
    tx: &mut Tx,
    project: ProjectId,
    kind: SubjectKind,
    id: Uuid,
    cause: Cause,
) -> StoreResult<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT 1 FROM incident
            WHERE project_id = $1 AND subject_kind = $2 AND subject_id = $3 AND resolved_at IS NULL AND cause = $4
        ) AS "found!""#,
        project.0,
        kind.as_str(),
        id,
        cause.as_str()
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(found)
}

/// Locks the open incidents of subjects, so that no monitor can join them. Returns how many there are.
///
/// # Errors
/// When the database is away.
pub async fn lock_open(tx: &mut Tx, subjects: &[SubjectKey]) -> StoreResult<u64> {
    let locked = sqlx::query_scalar!(
        "SELECT incident.id
        FROM incident
            JOIN UNNEST($1::text[], $2::uuid[], $3::uuid[]) AS subject (kind, id, project_id)
                ON subject.project_id = incident.project_id AND kind = subject_kind AND subject.id = subject_id
        WHERE resolved_at IS NULL
        ORDER BY incident.id
        FOR UPDATE OF incident",
        &column(subjects, |(_, kind, _)| kind.as_str().to_owned()),
        &column(subjects, |(.., id)| *id),
        &column(subjects, |(project, ..)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(locked.len() as u64)
}

/// Returns one incident of a project.
///
/// # Errors
/// When the database is away.
pub async fn get(reader: &Reader, project: ProjectId, id: IncidentId) -> StoreResult<Option<Incident>> {
    select!("WHERE project_id = $1 AND id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?
        .map(Incident::try_from)
        .transpose()
}

/// The filter of a list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// True: only open ones. False: only resolved ones.
    pub open: Option<bool>,
    /// Incidents about this subject.
    pub subject_id: Option<Uuid>,
}

/// Returns a project's incidents, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    filter: &Filter,
    page: Page<IncidentId>,
) -> StoreResult<Vec<Incident>> {
    let rows = select!(
        "WHERE project_id = $1
            AND ($2::uuid IS NULL OR id < $2)
            AND ($3::boolean IS NULL OR $3 = (resolved_at IS NULL))
            AND ($4::uuid IS NULL OR subject_id = $4)
        ORDER BY id DESC
        LIMIT $5",
        project.0,
        page.after.map(|id| id.0),
        filter.open,
        filter.subject_id,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Incident::try_from).collect()
}

/// Returns the open incidents about subjects.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn open_about(
    reader: &Reader,
    project: ProjectId,
    subjects: &[(SubjectKind, Uuid)],
) -> StoreResult<Vec<Incident>> {
    let rows = select!(
        "WHERE project_id = $1
            AND resolved_at IS NULL
            AND (subject_kind, subject_id) IN (SELECT * FROM UNNEST($2::text[], $3::uuid[]))",
        project.0,
        &column(subjects, |(kind, _)| kind.as_str().to_owned()),
        &column(subjects, |(_, id)| *id)
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Incident::try_from).collect()
}

/// Returns those of these incidents that exist.
///
/// # Errors
/// If the database is away.
pub async fn named(
    tx: &mut Tx,
    keys: &[(ProjectId, IncidentId)],
) -> StoreResult<Vec<Result<Incident, Unreadable>>> {
    let rows = select!(
        "WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(keys, |(project, _)| project.0),
        &column(keys, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Claims open incidents whose reminder is due, and moves the next reminder on by their project's interval. Returns
/// them with the time at which each was due. If a project has switched reminders off, its incidents have no next
/// reminder, and the caller must not send this one. An unreadable incident is moved on as well.
///
/// # Errors
/// If the database is away.
pub async fn claim_reminders(
    tx: &mut Tx,
    now: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Result<(Incident, DateTime<Utc>), Unreadable>>> {
    let due = sqlx::query!(
        r#"SELECT id, remind_at AS "remind_at!" FROM incident WHERE remind_at <= $1 ORDER BY remind_at LIMIT $2 FOR UPDATE SKIP LOCKED"#,
        now,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let due_at: HashMap<Uuid, DateTime<Utc>> = due.iter().map(|row| (row.id, row.remind_at)).collect();
    let rows = sqlx::query_as!(
        Row,
        "UPDATE incident
        SET remind_at = $1::timestamptz + make_interval(secs => project.reminder_seconds)
        FROM project
        WHERE project.id = incident.project_id AND incident.id = ANY($2)
        RETURNING incident.id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at,
            resolved_at, acknowledged_at, acknowledged_by, remind_at, inferred, severity, flapping",
        now,
        &column(&due, |row| row.id)
    )
    .fetch_all(tx.conn())
    .await?;
    let at = |id| due_at.get(&id).copied().unwrap_or(now);
    Ok(each(rows, |row| (row.project_id, row.id))
        .into_iter()
        .map(|row| {
            row.map(|incident: Incident| {
                let due_at = at(incident.id.0);
                (incident, due_at)
            })
        })
        .collect())
}
