//! Figures about the whole deployment, for metrics and readiness.

use chrono::{DateTime, Utc};

use crate::{Reader, StoreResult};

/// How far behind the loops are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The oldest `check_after` that has passed and was not looked at.
    pub oldest_check: Option<DateTime<Utc>>,
    /// Deliveries not settled.
    pub pending_deliveries: i64,
    /// When the oldest of them was put into the outbox.
    pub oldest_delivery: Option<DateTime<Utc>>,
    /// When the longest-waiting attempt was to be made that was not.
    pub overdue_delivery: Option<DateTime<Utc>>,
    /// Incidents that are open.
    pub open_incidents: i64,
}

/// Reads the figures.
///
/// # Errors
/// When the database is away.
pub async fn backlog(reader: &Reader, now: DateTime<Utc>) -> StoreResult<Backlog> {
    let row = sqlx::query!(
        r#"
        SELECT (SELECT min(check_after) FROM monitor WHERE check_after <= $1) AS oldest_check,
            (SELECT count(*) FROM delivery WHERE status = 'pending') AS "pending_deliveries!",
            (SELECT min(created_at) FROM delivery WHERE status = 'pending') AS oldest_delivery,
            (SELECT min(next_attempt_at) FROM delivery WHERE status = 'pending' AND next_attempt_at <= $1) AS overdue_delivery,
            (SELECT count(*) FROM incident WHERE resolved_at IS NULL) AS "open_incidents!"
        "#,
        now
    )
    .fetch_one(reader.pool())
    .await?;
    Ok(Backlog {
        oldest_check: row.oldest_check,
        pending_deliveries: row.pending_deliveries,
        oldest_delivery: row.oldest_delivery,
        overdue_delivery: row.overdue_delivery,
        open_incidents: row.open_incidents,
    })
}
