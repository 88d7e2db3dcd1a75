//! Deletes pings and their bodies: tables of whole days, pings beyond a monitor's share, days without a table, and pings of deleted monitors.

use chrono::{DateTime, NaiveDate, Utc};
use deadbeat_domain::ids::{MonitorId, MonitorKey, ProjectId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// The most rows of the default table that are counted, because a warning needs no exact number.
const MOST_COUNTED: i64 = 100_000;

/// A table that is split by days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayTable {
    /// `ping`
    Ping,
    /// `ping_body`
    PingBody,
}

impl DayTable {
    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::PingBody => "ping_body",
        }
    }
}

/// Creates the missing tables of these days (UTC), both included.
///
/// # Errors
/// If the database is away, or the default table is locked for longer than the lock timeout.
pub async fn make_partitions(tx: &mut Tx, first: NaiveDate, last: NaiveDate) -> StoreResult<()> {
    sqlx::query!("SELECT make_ping_partitions($1, $2)", first, last)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Drops the oldest table of a day before `first`. False: there is none. While this function waits for or holds the
/// table's lock, pings wait. So it gives up after two seconds.
///
/// # Errors
/// If the database is away, or the table is in use for two seconds.
pub async fn drop_oldest_day(tx: &mut Tx, table: DayTable, first: NaiveDate) -> StoreResult<bool> {
    sqlx::query!("SET LOCAL lock_timeout = '2s'")
        .execute(tx.conn())
        .await?;
    let dropped = sqlx::query_scalar!("SELECT drop_oldest_partition($1, $2)", table.name(), first)
        .fetch_one(tx.conn())
        .await?;
    Ok(dropped.is_some())
}

/// Deletes at most `limit` rows from before `before` from the default table. Returns how many.
///
/// # Errors
/// If the database is away.
pub async fn trim_default(
    tx: &mut Tx,
    table: DayTable,
    before: DateTime<Utc>,
    limit: i64,
) -> StoreResult<u64> {
    let done = match table {
        DayTable::Ping => {
            sqlx::query!(
                "DELETE FROM ping_default
                WHERE ctid = ANY(ARRAY(SELECT ctid FROM ping_default WHERE received_at < $1 LIMIT $2))",
                before,
                limit
            )
            .execute(tx.conn())
            .await?
        }
        DayTable::PingBody => {
            sqlx::query!(
                "DELETE FROM ping_body_default
                WHERE ctid = ANY(ARRAY(SELECT ctid FROM ping_body_default WHERE received_at < $1 LIMIT $2))",
                before,
                limit
            )
            .execute(tx.conn())
            .await?
        }
    };
    Ok(done.rows_affected())
}

/// Returns the number of pings in the default table. They are of days without a table of their own. Counts up to
/// 100,000.
///
/// # Errors
/// If the database is away.
pub async fn stray_pings(tx: &mut Tx) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (SELECT FROM ping_default LIMIT $1) AS strays"#,
        MOST_COUNTED
    )
    .fetch_one(tx.conn())
    .await?)
}

/// The pings of a monitor from one number to another, both included. The numbers have no gaps, so a range of numbers
/// limits the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingRange {
    /// The monitor.
    pub monitor: MonitorKey,
    /// The first number.
    pub from: i64,
    /// The last number.
    pub to: i64,
}

/// The monitors with more pings than their share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The pings beyond the share, in the order of the monitors' ids.
    pub ranges: Vec<PingRange>,
    /// The last monitor that was read. None: there are no more monitors.
    pub last: Option<MonitorId>,
}

/// Finds the pings beyond the newest `keep` of each of the next `limit` monitors.
///
/// # Errors
/// If the database is away.
pub async fn excess_pings(
    tx: &mut Tx,
    after: Option<MonitorId>,
    keep: i64,
    limit: i64,
) -> StoreResult<Excess> {
    let rows = sqlx::query!(
        r#"
        SELECT project_id, id, ping_count - $2 AS "to!",
            CASE WHEN ping_count > $2 THEN (
                SELECT n FROM ping WHERE ping.project_id = monitor.project_id AND monitor_id = monitor.id ORDER BY n LIMIT 1
            ) END AS "from?"
        FROM monitor
        WHERE $1::uuid IS NULL OR id > $1
        ORDER BY id
        LIMIT $3
        "#,
        after.map(|id| id.0),
        keep,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    let is_full = rows.len() as i64 >= limit;
    let last = rows.last().map(|row| MonitorId(row.id)).filter(|_| is_full);
    let ranges = rows
        .into_iter()
        .filter_map(|row| {
            let range = PingRange {
                monitor: (ProjectId(row.project_id), MonitorId(row.id)),
                from: row.from?,
                to: row.to,
            };
            (range.from <= range.to).then_some(range)
        })
        .collect();
    Ok(Excess { ranges, last })
}

/// Deletes these pings and their bodies. Returns the number of pings.
///
/// # Errors
/// If the database is away.
pub async fn trim_ranges(tx: &mut Tx, ranges: &[PingRange]) -> StoreResult<u64> {
    let projects = column(ranges, |range| range.monitor.0.0);
    let monitors = column(ranges, |range| range.monitor.1.0);
    let (from, to) = (
        column(ranges, |range| range.from),
        column(ranges, |range| range.to),
    );
    sqlx::query!(
        "DELETE FROM ping_body USING UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::uuid[]) AS old (monitor_id, first, last, project_id)
        WHERE ping_body.project_id = old.project_id AND ping_body.monitor_id = old.monitor_id AND ping_body.n BETWEEN old.first AND old.last",
        &monitors,
        &from,
        &to,
        &projects
    )
    .execute(tx.conn())
    .await?;
    let done = sqlx::query!(
        "DELETE FROM ping USING UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::uuid[]) AS old (monitor_id, first, last, project_id)
        WHERE ping.project_id = old.project_id AND ping.monitor_id = old.monitor_id AND ping.n BETWEEN old.first AND old.last",
        &monitors,
        &from,
        &to,
        &projects
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Deletes at most `limit` pings, bodies, runs and memberships of one deleted monitor. Returns how many. None: no
/// deleted monitor is left.
///
/// # Errors
/// If the database is away.
pub async fn purge_one(tx: &mut Tx, limit: i64) -> StoreResult<Option<u64>> {
    let gone = sqlx::query!("SELECT project_id, monitor_id FROM purge ORDER BY monitor_id LIMIT 1")
        .fetch_optional(tx.conn())
        .await?;
    let Some(gone) = gone else { return Ok(None) };
    let (project, monitor) = (gone.project_id, gone.monitor_id);
    let mut room = limit;
    // Delete by number, which is the order of the key. Where the planner expects few rows, a join with a limited subquery would compare each row with
    // each.
    let bodies = sqlx::query!(
        "DELETE FROM ping_body
        WHERE project_id = $3 AND monitor_id = $1
            AND n <= (SELECT max(n) FROM (SELECT n FROM ping_body WHERE project_id = $3 AND monitor_id = $1 ORDER BY n LIMIT $2) AS oldest)",
        monitor,
        room,
        project
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    room -= bodies as i64;
    let pings = sqlx::query!(
        "DELETE FROM ping
        WHERE project_id = $3 AND monitor_id = $1
            AND n <= (SELECT max(n) FROM (SELECT n FROM ping WHERE project_id = $3 AND monitor_id = $1 ORDER BY n LIMIT $2) AS oldest)",
        monitor,
        room,
        project
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    room -= pings as i64;
    let runs = sqlx::query!(
        "DELETE FROM run
        WHERE project_id = $3 AND monitor_id = $1
            AND id = ANY(ARRAY(SELECT id FROM run WHERE project_id = $3 AND monitor_id = $1 LIMIT $2))",
        monitor,
        room,
        project
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    room -= runs as i64;
    let memberships = sqlx::query!(
        "DELETE FROM incident_member
        WHERE project_id = $3 AND monitor_id = $1
            AND incident_id = ANY(ARRAY(SELECT incident_id FROM incident_member WHERE project_id = $3 AND monitor_id = $1 LIMIT $2))",
        monitor,
        room,
        project
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    room -= memberships as i64;
    if room > 0 {
        sqlx::query!(
            "DELETE FROM purge WHERE project_id = $1 AND monitor_id = $2",
            project,
            monitor
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(Some(bodies + pings + runs + memberships))
}
