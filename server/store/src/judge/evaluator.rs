//! Table `evaluator`: who sweeps. And what a sweep asks first.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::judge::hearing::{Hearing, lost_before};
use uuid::Uuid;

use crate::operation::listener::SPOOL_COUNTS;
use crate::{Reader, Store, StoreResult};

/// A row that was not stamped for this long is a process that is gone.
const GONE: TimeDelta = TimeDelta::days(1);

/// Says that this process has just swept.
///
/// # Errors
/// When the database is away.
pub async fn stamp(store: &Store, id: Uuid, now: DateTime<Utc>) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    sqlx::query!(
        "WITH gone AS (DELETE FROM evaluator WHERE swept_at < $3)
        INSERT INTO evaluator (id, swept_at) VALUES ($1, $2)
        ON CONFLICT (id) DO UPDATE SET swept_at = excluded.swept_at",
        id,
        now,
        now - GONE
    )
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// What a sweep asks before it takes anything: on an idle second this is all that it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agenda {
    /// What the processes that take signals in have said of themselves.
    pub hearing: Hearing,
    /// When the first Beat must be looked at.
    pub beat: Option<DateTime<Utc>>,
    /// When the first worker must be looked at.
    pub worker: Option<DateTime<Utc>>,
    /// When the first monitor must be looked at.
    pub monitor: Option<DateTime<Utc>>,
    /// When the first incident is to be told again.
    pub reminder: Option<DateTime<Utc>>,
    /// When the first project is to be told what could not be judged.
    pub notice: Option<DateTime<Utc>>,
}

impl Agenda {
    /// The nearest of these instants.
    #[must_use]
    pub fn nearest(&self) -> Option<DateTime<Utc>> {
        [self.beat, self.worker, self.monitor, self.reminder, self.notice]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Asks what there is to do, and whether it may be done. The listener `beside` is in the process that asks: it has the same line to the
/// database, so that nobody waits for its next stamp.
///
/// # Errors
/// When the database is away.
pub async fn agenda(reader: &Reader, beside: Option<Uuid>, now: DateTime<Utc>) -> StoreResult<Agenda> {
    let row = sqlx::query!(
        r#"
        SELECT (SELECT min(check_after) FROM beat WHERE check_after IS NOT NULL) AS beat,
            (SELECT min(check_after) FROM worker WHERE check_after IS NOT NULL) AS worker,
            (SELECT min(check_after) FROM monitor WHERE check_after IS NOT NULL) AS monitor,
            (SELECT min(remind_at) FROM incident WHERE remind_at IS NOT NULL) AS reminder,
            (SELECT min(tell_at) FROM blind_notice WHERE tell_at IS NOT NULL) AS notice,
            max(stamped_at) AS last_stamp,
            coalesce(sum(spooled) FILTER (WHERE stamped_at > $1), 0)::int8 AS "spooled!",
            min(stamped_at) FILTER (WHERE awaited_until > $2 AND id IS DISTINCT FROM $3) AS vouched_until,
            count(*) FILTER (WHERE awaited_until > $2 AND stamped_at < $4) AS "lost!",
            max(awaited_until) FILTER (WHERE awaited_until > $2 AND stamped_at < $4) AS waits_until
        FROM listener
        "#,
        now - SPOOL_COUNTS,
        now,
        beside,
        lost_before(now)
    )
    .fetch_one(reader.pool())
    .await?;
    Ok(Agenda {
        hearing: Hearing {
            last_stamp: row.last_stamp,
            spooled: row.spooled,
            vouched_until: row.vouched_until,
            lost: row.lost,
            waits_until: row.waits_until,
        },
        beat: row.beat,
        worker: row.worker,
        monitor: row.monitor,
        reminder: row.reminder,
        notice: row.notice,
    })
}
