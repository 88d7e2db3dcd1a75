//! Table `evaluator`: the processes that sweep; and the agenda of a sweep.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::incident::LONG_DOWN;
use deadbeat_domain::judge::reception::{Reception, lost_before};
use uuid::Uuid;

use crate::operation::listener::SPOOL_COUNTS;
use crate::{Reader, Store, StoreResult};

/// A process that has not stamped its row for this long counts as gone.
const GONE: TimeDelta = TimeDelta::days(1);

/// Notes that this process has just swept.
///
/// # Errors
/// If the database is away.
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

/// The agenda of a sweep. In a second without work, reading it is the only query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agenda {
    /// The stamps of the processes that receive signals.
    pub reception: Reception,
    /// When the first Beat must be judged.
    pub beat: Option<DateTime<Utc>>,
    /// When the first worker must be judged.
    pub worker: Option<DateTime<Utc>>,
    /// When the first monitor must be judged.
    pub monitor: Option<DateTime<Utc>>,
    /// When the first reminder is due.
    pub reminder: Option<DateTime<Utc>>,
    /// When the oldest open incident began that has no message about [`LONG_DOWN`] yet.
    pub long_open: Option<DateTime<Utc>>,
    /// When the first step of an escalation is due.
    pub escalation: Option<DateTime<Utc>>,
    /// When the first project is due a notice of a blind spell.
    pub notice: Option<DateTime<Utc>>,
}

impl Agenda {
    /// Returns when the first incident becomes [`LONG_DOWN`] old.
    #[must_use]
    pub fn long_down(&self) -> Option<DateTime<Utc>> {
        self.long_open.map(|opened_at| opened_at + LONG_DOWN)
    }

    /// Returns the earliest of these instants.
    #[must_use]
    pub fn nearest(&self) -> Option<DateTime<Utc>> {
        [
            self.beat,
            self.worker,
            self.monitor,
            self.reminder,
            self.long_down(),
            self.escalation,
            self.notice,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Reads the agenda, and whether silence may be judged. `beside` is the listener in this process. It shares the
/// process's connection to the database, so the evaluator need not wait for its next stamp.
///
/// # Errors
/// If the database is away.
pub async fn agenda(reader: &Reader, beside: Option<Uuid>, now: DateTime<Utc>) -> StoreResult<Agenda> {
    let row = sqlx::query!(
        r#"
        SELECT (SELECT min(check_after) FROM beat WHERE check_after IS NOT NULL) AS beat,
            (SELECT min(check_after) FROM worker WHERE check_after IS NOT NULL) AS worker,
            (SELECT min(check_after) FROM monitor WHERE check_after IS NOT NULL) AS monitor,
            (SELECT min(remind_at) FROM incident WHERE remind_at IS NOT NULL) AS reminder,
            (SELECT min(opened_at) FROM incident WHERE resolved_at IS NULL AND long_reminded_at IS NULL) AS long_open,
            (SELECT min(due_at) FROM escalation) AS escalation,
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
        reception: Reception {
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
        long_open: row.long_open,
        escalation: row.escalation,
        notice: row.notice,
    })
}
