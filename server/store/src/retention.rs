//! What is too old goes: tables of pings by day, pings beyond a monitor's share, pings of monitors that are gone, ended runs.
//!
//! Each statement is bounded; the caller repeats it. Each transaction takes one lock first, so that of several processes one works.

use chrono::{DateTime, NaiveDate, Utc};
use deadbeat_domain::ids::MonitorId;
use uuid::Uuid;

use crate::{StoreResult, Tx};

/// Any number, the same in every process: "the one that removes what is old".
const LOCK: i64 = 0x6465_6164_6265_6174;

/// Takes the right to remove for this transaction; false: another process is at it.
///
/// # Errors
/// When the database is away.
pub async fn try_lock(tx: &mut Tx) -> StoreResult<bool> {
    Ok(
        sqlx::query_scalar!("SELECT pg_try_advisory_xact_lock($1) AS \"held!\"", LOCK)
            .fetch_one(tx.conn())
            .await?,
    )
}

/// Makes the tables of these days (UTC), both included, where they are missing.
///
/// # Errors
/// When the database is away, or the default table is held for longer than the lock timeout.
pub async fn make_partitions(tx: &mut Tx, first: NaiveDate, last: NaiveDate) -> StoreResult<()> {
    sqlx::query!("SELECT make_ping_partitions($1, $2)", first, last)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Drops the tables of the days before `first`; answers how many. Pings wait while it holds the lock, so it gives up soon.
///
/// # Errors
/// When the database is away, or the table is in use for two seconds.
pub async fn drop_partitions(tx: &mut Tx, first: NaiveDate) -> StoreResult<i32> {
    sqlx::query!("SET LOCAL lock_timeout = '2s'")
        .execute(tx.conn())
        .await?;
    Ok(
        sqlx::query_scalar!("SELECT drop_ping_partitions($1) AS \"dropped!\"", first)
            .fetch_one(tx.conn())
            .await?,
    )
}

/// Removes what is older from the default tables; answers how many pings.
///
/// # Errors
/// When the database is away.
pub async fn trim_default(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    sqlx::query!("DELETE FROM ping_body_default WHERE received_at < $1", before)
        .execute(tx.conn())
        .await?;
    let done = sqlx::query!(
        "DELETE FROM ping_default
        WHERE ctid = ANY(ARRAY(SELECT ctid FROM ping_default WHERE received_at < $1 LIMIT $2))",
        before,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Pings in the default table: of days that have no table of their own.
///
/// # Errors
/// When the database is away.
pub async fn stray_pings(tx: &mut Tx) -> StoreResult<i64> {
    Ok(
        sqlx::query_scalar!("SELECT count(*) AS \"count!\" FROM ping_default")
            .fetch_one(tx.conn())
            .await?,
    )
}

/// Looks at `limit` monitors after one and removes their pings beyond the newest `keep`. Answers the last monitor looked at (none: it
/// was the last), and how many pings went.
///
/// # Errors
/// When the database is away.
pub async fn trim_counts(
    tx: &mut Tx,
    after: Option<MonitorId>,
    keep: i64,
    limit: i64,
) -> StoreResult<(Option<MonitorId>, u64)> {
    let row = sqlx::query!(
        r#"
        WITH looked AS MATERIALIZED (
            SELECT id, ping_count - $2 AS upto FROM monitor WHERE ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $3
        ), body AS (
            DELETE FROM ping_body USING looked WHERE upto > 0 AND ping_body.monitor_id = looked.id AND ping_body.n <= upto
        ), gone AS (
            DELETE FROM ping USING looked WHERE upto > 0 AND ping.monitor_id = looked.id AND ping.n <= upto RETURNING 1
        )
        SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM gone) AS "gone!"
        "#,
        after.map(|id| id.0),
        keep,
        limit
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((row.last.map(MonitorId), row.gone.unsigned_abs()))
}

/// Removes pings of one monitor that is gone, at most `limit`; answers how many, or none when no such monitor is left.
///
/// # Errors
/// When the database is away.
pub async fn purge_one(tx: &mut Tx, limit: i64) -> StoreResult<Option<u64>> {
    let monitor = sqlx::query_scalar!("SELECT monitor_id FROM purge ORDER BY monitor_id LIMIT 1")
        .fetch_optional(tx.conn())
        .await?;
    let Some(monitor) = monitor else { return Ok(None) };
    let pings = sqlx::query!(
        "DELETE FROM ping USING (SELECT n, received_at FROM ping WHERE monitor_id = $1 LIMIT $2) AS old
        WHERE ping.monitor_id = $1 AND ping.n = old.n AND ping.received_at = old.received_at",
        monitor,
        limit
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    if pings < limit.unsigned_abs() {
        sqlx::query!("DELETE FROM ping_body WHERE monitor_id = $1", monitor)
            .execute(tx.conn())
            .await?;
        sqlx::query!("DELETE FROM purge WHERE monitor_id = $1", monitor)
            .execute(tx.conn())
            .await?;
    }
    Ok(Some(pings))
}

/// Removes runs that were begun before `before` and are over, at most `limit`. Ids of runs sort by their time (v7).
///
/// # Errors
/// When the database is away.
pub async fn trim_runs(tx: &mut Tx, before: DateTime<Utc>, limit: i64) -> StoreResult<u64> {
    let milliseconds = u128::try_from(before.timestamp_millis()).unwrap_or_default();
    let first_kept = Uuid::from_u128(milliseconds << 80);
    let done = sqlx::query!(
        "DELETE FROM run
        WHERE id = ANY(ARRAY(SELECT id FROM run WHERE id < $1 AND status <> 'open' ORDER BY id LIMIT $2))",
        first_kept,
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
