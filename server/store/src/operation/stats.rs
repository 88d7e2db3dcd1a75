//! Counts of the whole deployment, for metrics and readiness.

use chrono::{DateTime, Utc};
use deadbeat_domain::judge::reception::{Reception, lost_before};

use crate::operation::listener::SPOOL_COUNTS;
use crate::{Reader, StoreResult};

/// How far the loops lag behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The oldest `check_after` that has passed without a check.
    pub oldest_check: Option<DateTime<Utc>>,
    /// The number of unsettled deliveries that are not held.
    pub pending_deliveries: i64,
    /// The number of held deliveries.
    pub held_deliveries: i64,
    /// The time since which the oldest unsettled delivery that is not held may be sent.
    pub oldest_delivery: Option<DateTime<Utc>>,
    /// The time at which the most overdue attempt was due.
    pub overdue_delivery: Option<DateTime<Utc>>,
    /// The number of open incidents.
    pub open_incidents: i64,
}

/// Reads the backlog.
///
/// # Errors
/// If the database is away.
pub async fn backlog(reader: &Reader, now: DateTime<Utc>) -> StoreResult<Backlog> {
    let row = sqlx::query!(
        r#"
        SELECT (SELECT min(check_after) FROM monitor WHERE check_after <= $1) AS oldest_check,
            outbox.pending AS "pending_deliveries!", outbox.held AS "held_deliveries!", outbox.oldest AS oldest_delivery,
            (SELECT min(next_attempt_at) FROM delivery WHERE status = 'pending' AND next_attempt_at <= $1) AS overdue_delivery,
            (SELECT count(*) FROM incident WHERE resolved_at IS NULL) AS "open_incidents!"
        FROM (
            SELECT count(*) FILTER (WHERE NOT is_held) AS pending, count(*) FILTER (WHERE is_held) AS held,
                min(greatest(created_at, not_before)) FILTER (WHERE NOT is_held) AS oldest
            FROM (
                SELECT created_at, not_before, coalesce(not_before > $1, false) AS is_held FROM delivery WHERE status = 'pending'
            ) AS unsettled
        ) AS outbox
        "#,
        now
    )
    .fetch_one(reader.pool())
    .await?;
    Ok(Backlog {
        oldest_check: row.oldest_check,
        pending_deliveries: row.pending_deliveries,
        held_deliveries: row.held_deliveries,
        oldest_delivery: row.oldest_delivery,
        overdue_delivery: row.overdue_delivery,
        open_incidents: row.open_incidents,
    })
}

/// The state of the whole deployment: cheap enough to read every second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// The time of the last sweep of any process.
    pub last_sweep_at: Option<DateTime<Utc>>,
    /// The stamps of the processes that receive signals.
    pub reception: Reception,
    /// The oldest `check_after` that has passed without a check.
    pub oldest_check: Option<DateTime<Utc>>,
    /// The time at which the most overdue attempt was due.
    pub overdue_delivery: Option<DateTime<Utc>>,
}

/// Reads the state of the whole deployment.
///
/// # Errors
/// If the database is away.
pub async fn pulse(reader: &Reader, now: DateTime<Utc>) -> StoreResult<Pulse> {
    let row = sqlx::query!(
        r#"
        SELECT (SELECT max(swept_at) FROM evaluator) AS last_sweep_at,
            max(stamped_at) AS last_stamp,
            coalesce(sum(spooled) FILTER (WHERE stamped_at > $2), 0)::int8 AS "spooled!",
            min(stamped_at) FILTER (WHERE awaited_until > $1) AS vouched_until,
            count(*) FILTER (WHERE awaited_until > $1 AND stamped_at < $3) AS "lost!",
            max(awaited_until) FILTER (WHERE awaited_until > $1 AND stamped_at < $3) AS waits_until,
            (SELECT min(check_after) FROM monitor WHERE check_after <= $1) AS oldest_check,
            (SELECT min(next_attempt_at) FROM delivery WHERE status = 'pending' AND next_attempt_at <= $1) AS overdue_delivery
        FROM listener
        "#,
        now,
        now - SPOOL_COUNTS,
        lost_before(now)
    )
    .fetch_one(reader.pool())
    .await?;
    Ok(Pulse {
        last_sweep_at: row.last_sweep_at,
        reception: Reception {
            last_stamp: row.last_stamp,
            spooled: row.spooled,
            vouched_until: row.vouched_until,
            lost: row.lost,
            waits_until: row.waits_until,
        },
        oldest_check: row.oldest_check,
        overdue_delivery: row.overdue_delivery,
    })
}
