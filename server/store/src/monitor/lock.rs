//! Locks monitors for a change: one monitor, those of a Beat, those of signals, or those that are overdue.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat::lineage::Bits;
use deadbeat_domain::ids::{BeatId, MonitorId, MonitorKey, PingId, ProjectId};
use deadbeat_domain::incident::SubjectKey;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use uuid::Uuid;

use super::{Monitor, Row, SignalledMonitor, Unreadable, alarm, one};
use crate::celery::beat::Beat;
use crate::celery::worker::Worker;
use crate::monitor::batch::column;
use crate::operation::listener::SPOOL_COUNTS;
use crate::schedule::memo;
use crate::{StoreError, StoreResult, Tx};

/// Locks one monitor of a project.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock(tx: &mut Tx, project: ProjectId, id: MonitorId) -> StoreResult<Option<Monitor>> {
    one(
        select!("WHERE project_id = $1 AND id = $2 FOR UPDATE", project.0, id.0)
            .fetch_optional(tx.conn())
            .await?,
    )
}

/// Locks one monitor of a project by slug.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock_by_slug(tx: &mut Tx, project: ProjectId, slug: &str) -> StoreResult<Option<Monitor>> {
    one(
        select!("WHERE project_id = $1 AND slug = $2 FOR UPDATE", project.0, slug)
            .fetch_optional(tx.conn())
            .await?,
    )
}

/// Locks monitors that a Beat registered, in id order, at most `limit`.
///
/// # Errors
/// If the database is away.
pub async fn lock_of_beat(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    limit: i64,
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    let rows = select!(
        "WHERE project_id = $1 AND beat_id = $2 ORDER BY id LIMIT $3 FOR UPDATE",
        project.0,
        beat.0,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}

/// Locks the next monitors of a Beat, in id order after `after`, at most `limit`. It locks monitors that are not
/// retired, whose entry is not in `entries`, and that no lineage outside `lineages` lists. Without entries, it leaves
/// out monitors that no known lineage lists.
///
/// # Errors
/// If the database is away.
pub async fn lock_unlisted(
    tx: &mut Tx,
    beat: &Beat,
    entries: &[String],
    lineages: Bits,
    after: Option<MonitorId>,
    limit: i64,
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    // NOT IN with a query finds the entry in a hash. `<> ALL` of a parameter would compare it with each of up to 5,000
    // entries.
    let rows = select!(
        "WHERE project_id = $6 AND beat_id = $1 AND retired_at IS NULL AND entry NOT IN (SELECT * FROM UNNEST($2::text[]))
            AND ($3::uuid IS NULL OR id > $3) AND listed_by & ~$5::smallint = 0 AND (listed_by <> 0 OR cardinality($2::text[]) > 0)
        ORDER BY id
        LIMIT $4
        FOR UPDATE",
        beat.id.0,
        entries,
        after.map(|id| id.0),
        limit,
        i16::from(lineages),
        beat.project_id.0
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}

/// Locks the monitors of these entries of a Beat, in id order.
///
/// # Errors
/// When the database is away.
pub async fn lock_entries(
    tx: &mut Tx,
    project: ProjectId,
    beat: &str,
    entries: &[String],
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    let rows = select!(
        "WHERE project_id = $1 AND beat_id = (SELECT id FROM beat WHERE project_id = $1 AND name = $2) AND entry = ANY($3)
        ORDER BY id
        FOR UPDATE",
        project.0,
        beat,
        entries
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}

/// Locks the monitors that are down because of these subjects, in id order. These are the members of the subjects' open
/// incidents that have no open incident of their own, or an open incident that waits for more good runs. A member that
/// recovered and then failed has an incident, or waits for more bad runs. The recovery of the subject does not repair it.
///
/// # Errors
/// If the database is away.
pub async fn lock_members(
    tx: &mut Tx,
    subjects: &[SubjectKey],
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    let rows = select!(
        "WHERE (project_id, id) IN (
                SELECT incident_member.project_id, monitor_id
                FROM UNNEST($1::text[], $2::uuid[], $3::uuid[]) AS subject (kind, id, project_id)
                    JOIN incident ON incident.project_id = subject.project_id AND subject_kind = kind AND subject_id = subject.id
                    JOIN incident_member ON incident_member.project_id = incident.project_id AND incident_id = incident.id
                WHERE resolved_at IS NULL
            )
            AND alarm IS DISTINCT FROM 'bad'
            AND (alarm = 'good' OR NOT EXISTS (
                SELECT FROM incident AS own
                WHERE own.project_id = monitor.project_id AND own.subject_kind = 'monitor' AND own.subject_id = monitor.id
                    AND own.resolved_at IS NULL
            ))
        ORDER BY id
        FOR UPDATE",
        &column(subjects, |(_, kind, _)| kind.as_str().to_owned()),
        &column(subjects, |(.., id)| *id),
        &column(subjects, |(project, ..)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}

/// Locks all monitors that a sweep of workers changes, in id order. These are the monitors with open runs that `lost` workers or these `incarnations`
/// execute, and the members of the open incidents of the workers that are `over`. One statement locks them all: two statements, one after the other,
/// could deadlock with a writer.
///
/// # Errors
/// If the database is away.
pub async fn lock_of_workers(
    tx: &mut Tx,
    lost: &[&Worker],
    over: &[SubjectKey],
    incarnations: &[(ProjectId, Uuid)],
) -> StoreResult<Vec<MonitorKey>> {
    let rows = sqlx::query!(
        "WITH wanted AS MATERIALIZED (
            SELECT run.project_id, monitor_id
            FROM UNNEST($1::uuid[], $2::text[], $3::text[]) AS lost (project_id, app, worker)
                JOIN beat ON beat.project_id = lost.project_id AND beat.name = lost.app
                JOIN monitor ON monitor.project_id = beat.project_id AND beat_id = beat.id AND open_runs > 0
                JOIN run ON run.project_id = monitor.project_id AND monitor_id = monitor.id AND run.status = 'open'
                    AND run.worker = lost.worker AND attempts > 0
            UNION ALL
            SELECT incident_member.project_id, monitor_id
            FROM UNNEST($4::uuid[], $7::uuid[]) AS over (id, project_id)
                JOIN incident ON incident.project_id = over.project_id AND subject_kind = 'worker' AND subject_id = over.id
                    AND resolved_at IS NULL
                JOIN incident_member ON incident_member.project_id = incident.project_id AND incident_id = incident.id
            UNION ALL
            SELECT run.project_id, monitor_id
            FROM UNNEST($5::uuid[], $6::uuid[]) AS owner (project_id, id)
                JOIN run ON run.project_id = owner.project_id AND incarnation = owner.id AND run.status = 'open'
        )
        SELECT project_id, id
        FROM monitor
        WHERE (project_id, id) IN (SELECT * FROM wanted)
        ORDER BY id
        FOR UPDATE",
        &column(lost, |worker| worker.project_id.0),
        &column(lost, |worker| worker.app.clone()),
        &column(lost, |worker| worker.name.clone()),
        &column(over, |(.., id)| *id),
        &column(incarnations, |(project, _)| project.0),
        &column(incarnations, |(_, id)| *id),
        &column(over, |(project, ..)| project.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId(row.project_id), MonitorId(row.id)))
        .collect())
}

/// Moves the deadline of the runs that lost workers executed to `now`, so that the evaluator judges them. Changes only
/// runs of `held` monitors, which the caller has locked ([`lock_of_workers`]).
///
/// # Errors
/// If the database is away.
pub async fn judge_runs_of(
    tx: &mut Tx,
    workers: &[&Worker],
    held: &[MonitorKey],
    now: DateTime<Utc>,
) -> StoreResult<u64> {
    let done = sqlx::query!(
        "WITH executed AS MATERIALIZED (
            SELECT run.project_id, monitor_id, run.id, run.worker
            FROM UNNEST($1::uuid[], $2::text[], $3::text[]) AS lost (project_id, app, worker)
                JOIN beat ON beat.project_id = lost.project_id AND beat.name = lost.app
                JOIN monitor ON monitor.project_id = beat.project_id AND beat_id = beat.id AND open_runs > 0
                JOIN run ON run.project_id = monitor.project_id AND monitor_id = monitor.id AND run.status = 'open'
                    AND run.worker = lost.worker AND attempts > 0
            WHERE monitor_id = ANY($5)
        ), ended AS (
            UPDATE run SET deadline_at = $4
            FROM executed
            WHERE run.project_id = executed.project_id AND run.monitor_id = executed.monitor_id AND run.id = executed.id
                AND run.status = 'open' AND run.worker = executed.worker AND run.attempts > 0
                AND run.deadline_at > $4
        )
        UPDATE monitor SET deadline_at = least(deadline_at, $4),
            hold_until = CASE WHEN hold_until IS NOT NULL THEN least(hold_until, $4) END, check_after = least(check_after, $4)
        WHERE (project_id, id) IN (SELECT project_id, monitor_id FROM executed) AND (status IN ('new', 'up') OR alarm = 'bad')",
        &column(workers, |worker| worker.project_id.0),
        &column(workers, |worker| worker.app.clone()),
        &column(workers, |worker| worker.name.clone()),
        now,
        &column(held, |(_, id)| id.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// How to treat rows that another transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Wait for these rows, until the lock timeout.
    Wait,
    /// Skip these rows.
    Skip,
}

struct Signalled {
    id: Uuid,
    project_id: Uuid,
    ping_id: Uuid,
    schedule: String,
    delay_seconds: f64,
    grace_seconds: f64,
    longest_run_seconds: Option<f64>,
    by_beat: bool,
    retired: bool,
    status: String,
    ping_count: i64,
    last_ping_at: Option<DateTime<Utc>>,
    last_success_at: Option<DateTime<Utc>>,
    decided_at: Option<DateTime<Utc>>,
    plain_end_at: Option<DateTime<Utc>>,
    last_duration_ms: Option<i64>,
    open_runs: i32,
    next_due_at: Option<DateTime<Utc>>,
    hinted_due_at: Option<DateTime<Utc>>,
    postponed_from: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    hold_until: Option<DateTime<Utc>>,
    failure_threshold: i16,
    recovery_threshold: i16,
    alarm: Option<String>,
    streak: Option<i16>,
    streak_since: Option<DateTime<Utc>>,
    opened_lately: Option<Vec<DateTime<Utc>>>,
    flapping_since: Option<DateTime<Utc>>,
    calm_at: Option<DateTime<Utc>>,
}

/// Locks the monitors of a batch of signals, in id order. Writers that all lock in one order cannot deadlock.
///
/// # Errors
/// If the database is away, or another transaction did not release a lock in time.
pub async fn lock_for_signals(
    tx: &mut Tx,
    ping_ids: &[Uuid],
    ids: &[Uuid],
    held: Held,
) -> StoreResult<Vec<Result<SignalledMonitor, Unreadable>>> {
    let rows = match held {
        Held::Wait => {
            sqlx::query_as!(
                Signalled,
                r#"
                SELECT id, project_id, ping_id, schedule::text AS "schedule!", delay_seconds, grace_seconds, longest_run_seconds,
                    beat_id IS NOT NULL AS "by_beat!",
                    retired_at IS NOT NULL AS "retired!", status, ping_count, last_ping_at, last_success_at, decided_at, plain_end_at,
                    last_duration_ms, open_runs,
                    next_due_at, hinted_due_at, postponed_from, deadline_at, hold_until, failure_threshold, recovery_threshold, alarm, streak,
                    streak_since, opened_lately, flapping_since, calm_at
                FROM monitor
                WHERE ping_id = ANY($1) OR id = ANY($2) ORDER BY id FOR UPDATE
                "#,
                ping_ids,
                ids
            )
            .fetch_all(tx.conn())
            .await?
        }
        Held::Skip => {
            sqlx::query_as!(
                Signalled,
                r#"
                SELECT id, project_id, ping_id, schedule::text AS "schedule!", delay_seconds, grace_seconds, longest_run_seconds,
                    beat_id IS NOT NULL AS "by_beat!",
                    retired_at IS NOT NULL AS "retired!", status, ping_count, last_ping_at, last_success_at, decided_at, plain_end_at,
                    last_duration_ms, open_runs,
                    next_due_at, hinted_due_at, postponed_from, deadline_at, hold_until, failure_threshold, recovery_threshold, alarm, streak,
                    streak_since, opened_lately, flapping_since, calm_at
                FROM monitor
                WHERE ping_id = ANY($1) OR id = ANY($2) ORDER BY id FOR UPDATE SKIP LOCKED
                "#,
                ping_ids,
                ids
            )
            .fetch_all(tx.conn())
            .await?
        }
    };
    let signalled = rows.into_iter().map(|row| {
        let id = MonitorId(row.id);
        let project_id = ProjectId(row.project_id);
        let corrupt = |what: String| Unreadable {
            project_id,
            id,
            entry: None,
            error: StoreError::Corrupt(format!("monitor {id}: {what}")),
        };
        let schedule = memo::read(&row.schedule).map_err(|error| corrupt(error.to_string()))?;
        let status = Status::parse(&row.status).ok_or_else(|| corrupt(format!("status {}", row.status)))?;
        Ok(SignalledMonitor {
            id,
            project_id,
            ping_id: PingId(row.ping_id),
            open_runs: row.open_runs,
            state: MonitorState {
                expectation: Expectation {
                    schedule,
                    delay_seconds: row.delay_seconds,
                    grace_seconds: row.grace_seconds,
                    longest_run_seconds: row.longest_run_seconds,
                },
                thresholds: alarm::thresholds(row.failure_threshold, row.recovery_threshold),
                status,
                alarm: alarm::read(row.alarm.as_deref(), row.streak, row.streak_since),
                flaps: alarm::flaps(row.opened_lately, row.flapping_since, row.calm_at),
                raised_after: None,
                by_beat: row.by_beat,
                retired: row.retired,
                ping_count: row.ping_count,
                last_ping_at: row.last_ping_at,
                last_success_at: row.last_success_at,
                decided_at: row.decided_at,
                plain_end_at: row.plain_end_at,
                last_duration: row.last_duration_ms.map(TimeDelta::milliseconds),
                next_due_at: row.next_due_at,
                hinted_due_at: row.hinted_due_at,
                postponed_from: row.postponed_from,
                deadline_at: row.deadline_at,
                hold_until: row.hold_until,
                runs: Vec::new(),
                baseline: None,
            },
        })
    });
    Ok(signalled.collect())
}

/// Returns the ids and ping ids of those of these monitors that exist. It reads locked rows, too.
///
/// # Errors
/// When the database is away.
pub async fn existing(tx: &mut Tx, ping_ids: &[Uuid], ids: &[Uuid]) -> StoreResult<Vec<(MonitorId, PingId)>> {
    let rows = sqlx::query!(
        "SELECT id, ping_id FROM monitor WHERE ping_id = ANY($1) OR id = ANY($2)",
        ping_ids,
        ids
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.id), PingId(row.ping_id)))
        .collect())
}

/// Locks those of these monitors that no other transaction has locked, in id order.
///
/// # Errors
/// When the database is away.
pub async fn lock_free(
    tx: &mut Tx,
    monitors: &[(ProjectId, MonitorId)],
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    let rows = select!(
        "WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[])) ORDER BY id FOR UPDATE SKIP LOCKED",
        &column(monitors, |(project, _)| project.0),
        &column(monitors, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}

/// Locks the next monitors after an id, in id order, at most `limit`.
///
/// # Errors
/// When the database is away.
pub async fn lock_after(
    tx: &mut Tx,
    after: Uuid,
    limit: i64,
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    let rows = select!("WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE", after, limit)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}

/// Claims monitors whose `check_after` has passed, oldest first. Skips locked rows. So a signal that is being written
/// always precedes the judgement of silence, and several evaluators share the work.
///
/// Leaves out monitors with a signal that a process has just set aside: the process acknowledged the signal, and will
/// soon write it.
///
/// # Errors
/// If the database is away.
pub async fn claim_overdue(
    tx: &mut Tx,
    now: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Result<Monitor, Unreadable>>> {
    let rows = select!(
        "WHERE check_after <= $1
            AND NOT EXISTS (SELECT FROM listener WHERE stamped_at > $3 AND monitor.id = ANY(listener.aside))
        ORDER BY check_after LIMIT $2 FOR UPDATE OF monitor SKIP LOCKED",
        now,
        limit,
        now - SPOOL_COUNTS
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Monitor::try_from).collect())
}
