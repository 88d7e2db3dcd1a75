//! Table `escalation`: the next step of each incident that escalates.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::escalation::Pending;
use deadbeat_domain::ids::{EscalationPolicyId, IncidentId, ProjectId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// The project and id of an incident.
pub type IncidentKey = (ProjectId, IncidentId);

/// The next step of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escalation {
    /// The incident.
    pub incident: IncidentKey,
    /// The policy.
    pub policy: EscalationPolicyId,
    /// The step.
    pub pending: Pending,
}

/// A step that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The step.
    pub escalation: Escalation,
    /// True if the incident is resolved, or a person acknowledged it.
    pub is_over: bool,
}

/// Notes the first steps of incidents that opened in the same transaction.
///
/// # Errors
/// If the database is away.
pub async fn begin(tx: &mut Tx, escalations: &[Escalation]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO escalation (project_id, incident_id, policy_id, step, round, due_at)
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::int4[], $5::int4[], $6::timestamptz[])
        ON CONFLICT (incident_id, project_id) DO NOTHING",
        &column(escalations, |one| one.incident.0.0),
        &column(escalations, |one| one.incident.1.0),
        &column(escalations, |one| one.policy.0),
        &column(escalations, |one| small(one.pending.step)),
        &column(escalations, |one| small(one.pending.round)),
        &column(escalations, |one| one.pending.due_at)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Claims steps that are due, at most `limit`. They stay locked until the transaction ends: no other process claims
/// them, and a transaction that acknowledges or resolves the incident waits.
///
/// Leaves out a step while another transaction has locked its incident against foreign keys. The new deliveries need
/// such a key, and the transaction that holds that lock may wait for this step ([`end`]).
///
/// # Errors
/// If the database is away.
pub async fn claim(tx: &mut Tx, now: DateTime<Utc>, limit: i64) -> StoreResult<Vec<Due>> {
    let rows = sqlx::query!(
        r#"
        SELECT escalation.project_id, incident_id, policy_id, step, round, due_at,
            resolved_at IS NOT NULL OR acknowledged_at IS NOT NULL AS "is_over!"
        FROM escalation JOIN incident ON incident.project_id = escalation.project_id AND incident.id = incident_id
        WHERE due_at <= $1
        ORDER BY due_at
        LIMIT $2
        FOR UPDATE OF escalation SKIP LOCKED
        FOR KEY SHARE OF incident SKIP LOCKED
        "#,
        now,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Due {
            escalation: Escalation {
                incident: (ProjectId(row.project_id), IncidentId(row.incident_id)),
                policy: EscalationPolicyId(row.policy_id),
                pending: Pending {
                    // The table allows no negative numbers.
                    step: row.step.unsigned_abs(),
                    round: row.round.unsigned_abs(),
                    due_at: row.due_at,
                },
            },
            is_over: row.is_over,
        })
        .collect())
}

/// Writes the next steps of claimed escalations.
///
/// # Errors
/// If the database is away.
pub async fn move_on(tx: &mut Tx, next: &[Escalation]) -> StoreResult<()> {
    if next.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE escalation SET step = next.step, round = next.round, due_at = next.due_at
        FROM UNNEST($1::uuid[], $2::uuid[], $3::int4[], $4::int4[], $5::timestamptz[]) AS next (project_id, incident_id, step, round, due_at)
        WHERE escalation.project_id = next.project_id AND escalation.incident_id = next.incident_id",
        &column(next, |one| one.incident.0.0),
        &column(next, |one| one.incident.1.0),
        &column(next, |one| small(one.pending.step)),
        &column(next, |one| small(one.pending.round)),
        &column(next, |one| one.pending.due_at)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends the escalations of incidents.
///
/// # Errors
/// If the database is away.
pub async fn end(tx: &mut Tx, incidents: &[IncidentKey]) -> StoreResult<()> {
    if incidents.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "DELETE FROM escalation WHERE (project_id, incident_id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(incidents, |(project, _)| project.0),
        &column(incidents, |(_, id)| id.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Converts a number of steps or rounds to the table's type.
fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
