//! Table `attempt`: every attempt of a delivery.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{DeliveryId, ProjectId};

use crate::{Reader, StoreResult, Tx};

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: i32,
    /// `sent`, `retry` or `failed`.
    pub outcome: String,
    /// The label of the fault: see [`deadbeat_domain::alert::delivery::Reason::as_str`]. None: the attempt succeeded, or an older version wrote the
    /// row.
    pub reason: Option<String>,
    /// HTTP or SMTP code.
    pub response_code: Option<i32>,
    /// The fault, for the person who repairs it.
    pub detail: Option<String>,
}

/// Appends an attempt.
///
/// # Errors
/// If the database is away.
pub async fn insert(
    tx: &mut Tx,
    project: ProjectId,
    delivery: DeliveryId,
    attempt: &Attempt,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO attempt (project_id, delivery_id, number, started_at, duration_ms, outcome, reason, response_code, detail)
        SELECT delivery.project_id, id, $2, $3, $4, $5, $6, $7, $8 FROM delivery WHERE delivery.project_id = $9 AND id = $1
        ON CONFLICT (delivery_id, number, project_id) DO NOTHING",
        delivery.0,
        attempt.number,
        attempt.started_at,
        attempt.duration_ms,
        attempt.outcome,
        attempt.reason,
        attempt.response_code,
        attempt.detail,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns a delivery's attempts, first to last.
///
/// # Errors
/// If the database is away.
pub async fn list(reader: &Reader, project: ProjectId, delivery: DeliveryId) -> StoreResult<Vec<Attempt>> {
    Ok(sqlx::query_as!(
        Attempt,
        "SELECT number, started_at, duration_ms, outcome, reason, response_code, detail
        FROM attempt
        WHERE project_id = $1 AND delivery_id = $2
        ORDER BY number",
        project.0,
        delivery.0
    )
    .fetch_all(reader.pool())
    .await?)
}
