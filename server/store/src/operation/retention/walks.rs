//! Deletes rows of tables that are not split by day: runs, incidents with the rows that belong to them, histories,
//! spells, sessions.
//!
//! A step deletes the rows that belong to another row before that row, so no step cascades. Attempts go before their
//! delivery; deliveries and members go before their incident. An open incident keeps its members, its deliveries with
//! their attempts, and its subject's history. An unsettled delivery stays, and keeps its incident.
//!
//! Every condition about another table is a scalar subquery. So PostgreSQL evaluates each by an index, and never reads
//! the whole table.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Walked, first_id_of};
use crate::{StoreResult, Tx};

/// Walks runs that began before `before`, and deletes those that have ended.
///
/// # Errors
/// If the database is away.
pub async fn runs(tx: &mut Tx, after: Uuid, before: DateTime<Utc>, limit: i64) -> StoreResult<Walked<Uuid>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT id, status FROM run WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3
        ), gone AS (
            DELETE FROM run
            WHERE id = ANY(ARRAY(SELECT id FROM looked WHERE status <> 'open')) AND status <> 'open'
            RETURNING 1
        )
        SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM looked) AS "looked!",
            (SELECT count(*) FROM gone) AS "gone!"
        "#,
        after,
        first_id_of(before),
        limit
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Walked::new(row.gone, row.looked, limit, row.last))
}

/// The ages up to which deliveries and their rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryCutoffs {
    /// Attempts that began before this are deleted.
    pub attempts: DateTime<Utc>,
    /// Deliveries that were settled before this are deleted, with their attempts.
    pub deliveries: DateTime<Utc>,
    /// Incidents that were resolved before this are deleted, with their deliveries.
    pub incidents: DateTime<Utc>,
}

impl DeliveryCutoffs {
    /// Returns the latest of the three. No row that was written after this instant may be deleted.
    fn newest(self) -> DateTime<Utc> {
        self.attempts.max(self.deliveries).max(self.incidents)
    }
}

/// Walks attempts, and deletes those of settled deliveries that are too old.
///
/// # Errors
/// When the database is away.
pub async fn attempts(
    tx: &mut Tx,
    (delivery, number): (Uuid, i32),
    cutoffs: DeliveryCutoffs,
    limit: i64,
) -> StoreResult<Walked<(Uuid, i32)>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT ctid AS place, delivery_id, number, started_at,
                (
                    SELECT settled_at FROM delivery WHERE delivery.project_id = attempt.project_id AND delivery.id = delivery_id
                ) AS settled_at,
                -- NULL: it belongs to no incident.
                (
                    SELECT (
                        SELECT coalesce(resolved_at, 'infinity')
                        FROM incident
                        WHERE incident.project_id = delivery.project_id AND incident.id = incident_id
                    )
                    FROM delivery
                    WHERE delivery.project_id = attempt.project_id AND delivery.id = delivery_id
                ) AS over_at
            FROM attempt
            WHERE (delivery_id, number) > ($1, $2) AND delivery_id < $3
            ORDER BY delivery_id, number
            LIMIT $4
        ), gone AS (
            DELETE FROM attempt
            WHERE ctid = ANY(ARRAY(
                SELECT place
                FROM looked
                WHERE settled_at IS NOT NULL AND coalesce(over_at, '-infinity') < 'infinity'
                    AND (started_at < $5 OR settled_at < $6 OR over_at < $7)
            ))
            RETURNING 1
        )
        SELECT (SELECT delivery_id FROM looked ORDER BY delivery_id DESC, number DESC LIMIT 1) AS last_delivery,
            (SELECT number FROM looked ORDER BY delivery_id DESC, number DESC LIMIT 1) AS last_number,
            (SELECT count(*) FROM looked) AS "looked!", (SELECT count(*) FROM gone) AS "gone!"
        "#,
        delivery,
        number,
        first_id_of(cutoffs.newest()),
        limit,
        cutoffs.attempts,
        cutoffs.deliveries,
        cutoffs.incidents
    )
    .fetch_one(tx.conn())
    .await?;
    let last = row.last_delivery.zip(row.last_number);
    Ok(Walked::new(row.gone, row.looked, limit, last))
}

/// Walks deliveries, and deletes settled ones that are too old. A delivery stays until its attempts are deleted.
///
/// # Errors
/// When the database is away.
pub async fn deliveries(
    tx: &mut Tx,
    after: Uuid,
    cutoffs: DeliveryCutoffs,
    limit: i64,
) -> StoreResult<Walked<Uuid>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT id, settled_at,
                (
                    SELECT coalesce(resolved_at, 'infinity')
                    FROM incident
                    WHERE incident.project_id = delivery.project_id AND incident.id = incident_id
                ) AS over_at,
                (
                    SELECT number FROM attempt WHERE attempt.project_id = delivery.project_id AND delivery_id = delivery.id LIMIT 1
                ) IS NULL AS is_bare
            FROM delivery
            WHERE id > $1 AND id < $2
            ORDER BY id
            LIMIT $3
        ), gone AS (
            DELETE FROM delivery
            WHERE id = ANY(ARRAY(
                    SELECT id
                    FROM looked
                    WHERE settled_at IS NOT NULL AND coalesce(over_at, '-infinity') < 'infinity' AND is_bare
                        AND (settled_at < $4 OR over_at < $5)
                ))
                AND settled_at IS NOT NULL
            RETURNING 1
        )
        SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM looked) AS "looked!",
            (SELECT count(*) FROM gone) AS "gone!"
        "#,
        after,
        first_id_of(cutoffs.deliveries.max(cutoffs.incidents)),
        limit,
        cutoffs.deliveries,
        cutoffs.incidents
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Walked::new(row.gone, row.looked, limit, row.last))
}

/// Walks the members of incidents, and deletes those of incidents that were resolved before `before`.
///
/// # Errors
/// When the database is away.
pub async fn members(
    tx: &mut Tx,
    (incident, monitor): (Uuid, Uuid),
    before: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Walked<(Uuid, Uuid)>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT ctid AS place, incident_id, monitor_id,
                (
                    SELECT resolved_at
                    FROM incident
                    WHERE incident.project_id = incident_member.project_id AND incident.id = incident_id
                ) AS resolved_at
            FROM incident_member
            WHERE (incident_id, monitor_id) > ($1, $2) AND incident_id < $3
            ORDER BY incident_id, monitor_id
            LIMIT $4
        ), gone AS (
            DELETE FROM incident_member
            WHERE ctid = ANY(ARRAY(SELECT place FROM looked WHERE resolved_at < $5))
            RETURNING 1
        )
        SELECT (SELECT incident_id FROM looked ORDER BY incident_id DESC, monitor_id DESC LIMIT 1) AS last_incident,
            (SELECT monitor_id FROM looked ORDER BY incident_id DESC, monitor_id DESC LIMIT 1) AS last_monitor,
            (SELECT count(*) FROM looked) AS "looked!", (SELECT count(*) FROM gone) AS "gone!"
        "#,
        incident,
        monitor,
        first_id_of(before),
        limit,
        before
    )
    .fetch_one(tx.conn())
    .await?;
    let last = row.last_incident.zip(row.last_monitor);
    Ok(Walked::new(row.gone, row.looked, limit, last))
}

/// Walks the handles of messages, and deletes those of incidents that were resolved before `before`.
///
/// # Errors
/// When the database is away.
pub async fn handles(
    tx: &mut Tx,
    (incident, channel): (Uuid, Uuid),
    before: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Walked<(Uuid, Uuid)>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT ctid AS place, incident_id, channel_id,
                (
                    SELECT resolved_at
                    FROM incident
                    WHERE incident.project_id = message_handle.project_id AND incident.id = incident_id
                ) AS resolved_at
            FROM message_handle
            WHERE (incident_id, channel_id) > ($1, $2) AND incident_id < $3
            ORDER BY incident_id, channel_id
            LIMIT $4
        ), gone AS (
            DELETE FROM message_handle
            WHERE ctid = ANY(ARRAY(SELECT place FROM looked WHERE resolved_at < $5))
            RETURNING 1
        )
        SELECT (SELECT incident_id FROM looked ORDER BY incident_id DESC, channel_id DESC LIMIT 1) AS last_incident,
            (SELECT channel_id FROM looked ORDER BY incident_id DESC, channel_id DESC LIMIT 1) AS last_channel,
            (SELECT count(*) FROM looked) AS "looked!", (SELECT count(*) FROM gone) AS "gone!"
        "#,
        incident,
        channel,
        first_id_of(before),
        limit,
        before
    )
    .fetch_one(tx.conn())
    .await?;
    let last = row.last_incident.zip(row.last_channel);
    Ok(Walked::new(row.gone, row.looked, limit, last))
}

/// Walks incidents, and deletes those that were resolved before `before`. An incident stays until its members, deliveries and handles of messages are
/// deleted.
///
/// # Errors
/// When the database is away.
pub async fn incidents(
    tx: &mut Tx,
    after: Uuid,
    before: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Walked<Uuid>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT id, resolved_at,
                (
                    SELECT monitor_id
                    FROM incident_member
                    WHERE incident_member.project_id = incident.project_id AND incident_id = incident.id
                    LIMIT 1
                ) IS NULL AND (
                    SELECT delivery.id
                    FROM delivery
                    WHERE delivery.project_id = incident.project_id AND incident_id = incident.id
                    LIMIT 1
                ) IS NULL AND (
                    SELECT channel_id
                    FROM message_handle
                    WHERE message_handle.project_id = incident.project_id AND incident_id = incident.id
                    LIMIT 1
                ) IS NULL AS is_bare
            FROM incident
            WHERE id > $1 AND id < $2
            ORDER BY id
            LIMIT $3
        ), gone AS (
            DELETE FROM incident WHERE id = ANY(ARRAY(SELECT id FROM looked WHERE resolved_at < $4 AND is_bare)) RETURNING 1
        )
        SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM looked) AS "looked!",
            (SELECT count(*) FROM gone) AS "gone!"
        "#,
        after,
        first_id_of(before),
        limit,
        before
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Walked::new(row.gone, row.looked, limit, row.last))
}

/// Walks the histories of subjects, and deletes changes of status from before `before`. A subject with an open incident
/// keeps its history.
///
/// Reads the whole table in the order of its key. Another index would cost more at every change of status than this
/// walk costs.
///
/// # Errors
/// If the database is away.
pub async fn transitions(
    tx: &mut Tx,
    (kind, subject, id): &(String, Uuid, Uuid),
    before: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Walked<(String, Uuid, Uuid)>> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT ctid AS place, subject_kind, subject_id, id, at,
                CASE WHEN at < $4 THEN (
                    SELECT incident.id
                    FROM incident
                    WHERE incident.project_id = transition.project_id AND incident.subject_kind = transition.subject_kind
                        AND incident.subject_id = transition.subject_id
                        AND resolved_at IS NULL
                ) END AS open_incident
            FROM transition
            WHERE (subject_kind, subject_id, id) > ($1, $2, $3)
            ORDER BY subject_kind, subject_id, id
            LIMIT $5
        ), gone AS (
            DELETE FROM transition
            WHERE ctid = ANY(ARRAY(SELECT place FROM looked WHERE at < $4 AND open_incident IS NULL))
            RETURNING 1
        ), last AS (
            SELECT subject_kind, subject_id, id FROM looked ORDER BY subject_kind DESC, subject_id DESC, id DESC LIMIT 1
        )
        SELECT last.subject_kind AS "kind?", last.subject_id AS "subject?", last.id AS "id?",
            (SELECT count(*) FROM looked) AS "looked!", (SELECT count(*) FROM gone) AS "gone!"
        FROM (VALUES (1)) AS one LEFT JOIN last ON true
        "#,
        kind,
        subject,
        id,
        before,
        limit
    )
    .fetch_one(tx.conn())
    .await?;
    let last = match (row.kind, row.subject, row.id) {
        (Some(kind), Some(subject), Some(id)) => Some((kind, subject, id)),
        _ => None,
    };
    Ok(Walked::new(row.gone, row.looked, limit, last))
}

/// Deletes the oldest changes of the next project after `after`: those from before `before`, and all but its newest `keep`.
///
/// It deletes only the oldest changes, so that the kept sequences have no hole. So a reader that finds the next sequence has missed nothing. The walk
/// stays at one project until no more of its changes are too old.
///
/// # Errors
/// When the database is away.
pub async fn changes(
    tx: &mut Tx,
    after: Uuid,
    before: DateTime<Utc>,
    keep: i64,
    limit: i64,
) -> StoreResult<Walked<Uuid>> {
    let row = sqlx::query!(
        r#"
        WITH project AS MATERIALIZED (
            SELECT project_id, last FROM change_counter WHERE project_id > $1 ORDER BY project_id LIMIT 1
        ), oldest AS MATERIALIZED (
            SELECT sequence, at
            FROM change
            WHERE project_id = (SELECT project_id FROM project)
            ORDER BY sequence
            LIMIT $4
        ), gone AS (
            DELETE FROM change
            WHERE project_id = (SELECT project_id FROM project)
                AND sequence <= (
                    SELECT max(sequence) FROM oldest WHERE at < $2 OR sequence <= (SELECT last FROM project) - $3
                )
            RETURNING 1
        )
        SELECT (SELECT project_id FROM project) AS project, (SELECT count(*) FROM gone) AS "gone!"
        "#,
        after,
        before,
        keep,
        limit
    )
    .fetch_one(tx.conn())
    .await?;
    let is_done = row.gone < limit;
    Ok(Walked {
        removed: row.gone.unsigned_abs(),
        last: row.project.map(|project| if is_done { project } else { after }),
    })
}

/// Deletes entries of audit trails from before `before`, at most `limit`. Returns how many.
///
/// # Errors
/// When the database is away.
pub async fn audit_entries(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    // The ids sort by time, so the oldest entries of all projects stand at the start of the primary key.
    let done = sqlx::query!(
        "DELETE FROM audit_entry WHERE id = ANY(ARRAY(SELECT id FROM audit_entry WHERE id < $1 ORDER BY id LIMIT $2))",
        first_id_of(before),
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Deletes blind spells that ended before `before`, at most `limit`. Returns how many.
///
/// # Errors
/// When the database is away.
pub async fn old_spells(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM blind_spell
        WHERE id = ANY(ARRAY(SELECT id FROM blind_spell WHERE ended_at < $1 ORDER BY ended_at LIMIT $2))",
        before,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Deletes sessions that have expired, at most `limit`. Returns how many.
///
/// # Errors
/// When the database is away.
pub async fn expired_sessions(tx: &mut Tx, now: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let done = sqlx::query!(
        "DELETE FROM session WHERE id = ANY(ARRAY(SELECT id FROM session WHERE expires_at <= $1 LIMIT $2))",
        now,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
