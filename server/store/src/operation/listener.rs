//! Tables `listener` and `blind_spell`: the processes that receive signals, and the stretches in which none of them
//! listened.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use uuid::Uuid;

use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// An arbitrary number, equal in every process: "listener".
const LOCK: i64 = 0x6c69_7374_656e_6572;

/// A process that has not stamped its row for this long counts as gone.
const GONE: TimeDelta = TimeDelta::days(1);

/// A spool counts if its process has stamped within this time.
pub(crate) const SPOOL_COUNTS: TimeDelta = TimeDelta::minutes(1);

/// The stamp of a process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The process's id. It is also the id of its spool, if it has one.
    pub id: Uuid,
    /// The number of signals in its spool.
    pub spooled: i64,
    /// Until when judgement waits for this process if it falls silent. None: the process cannot hold signals.
    pub awaited_until: Option<DateTime<Utc>>,
    /// The addresses of signals that it has just set aside. The evaluator does not judge their monitors yet.
    pub aside: Addresses,
}

/// Addresses of signals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Ping ids.
    pub ping_ids: Vec<Uuid>,
    /// Digests of ping keys; the slug of each is at the same index.
    pub digests: Vec<Vec<u8>>,
    /// Slugs.
    pub slugs: Vec<String>,
}

/// The newest stamps before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// The newest stamp of any process. None: no process ever listened.
    pub any: Option<DateTime<Utc>>,
    /// The newest stamp of the same process, if judgement still waits for the process.
    pub own: Option<DateTime<Utc>>,
}

/// Notes that this process listens. Returns the previous stamps. The next process that stamps waits until this
/// transaction ends, so that one of the two sees a gap.
///
/// # Errors
/// If the database is away.
pub async fn stamp(tx: &mut Tx, stamp: Stamp, now: DateTime<Utc>) -> StoreResult<Before> {
    // A crash of PostgreSQL may lose this stamp, and make a spell look longer. To wait for a slow disk would be worse:
    // that would make a spell where there is none.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1), set_config('synchronous_commit', 'off', true)",
        LOCK
    )
    .fetch_one(tx.conn())
    .await?;
    let before = sqlx::query_as!(
        Before,
        r#"SELECT max(stamped_at) AS "any", max(stamped_at) FILTER (WHERE id = $1 AND awaited_until > $2) AS own FROM listener"#,
        stamp.id,
        now
    )
    .fetch_one(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO listener (id, stamped_at, spooled, awaited_until, aside)
        VALUES ($1, $2, $3, $4, ARRAY(
            SELECT id FROM monitor WHERE ping_id = ANY($5)
            UNION
            SELECT monitor.id
            FROM UNNEST($6::bytea[], $7::text[]) AS asked (digest, slug)
            JOIN api_key ON api_key.digest = asked.digest
            JOIN monitor ON monitor.project_id = api_key.project_id AND monitor.slug = asked.slug
        ))
        ON CONFLICT (id) DO UPDATE
        SET stamped_at = excluded.stamped_at, spooled = excluded.spooled, awaited_until = excluded.awaited_until,
            aside = excluded.aside",
        stamp.id,
        now,
        stamp.spooled,
        stamp.awaited_until,
        &stamp.aside.ping_ids,
        &stamp.aside.digests,
        &stamp.aside.slugs
    )
    .execute(tx.conn())
    .await?;
    Ok(before)
}

/// Makes judgement wait again, until `until`, for the processes for which it waited at `since`. The caller has found
/// that no process has listened since then.
///
/// # Errors
/// If the database is away.
pub async fn wait_again(tx: &mut Tx, since: DateTime<Utc>, until: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE listener SET awaited_until = $2 WHERE awaited_until > $1 AND awaited_until < $2",
        since,
        until
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that this process stops and holds no signals, so judgement need not wait for it. Its row stays: the newest of
/// all stamps shows since when no process listens.
///
/// # Errors
/// If the database is away.
pub async fn sign_off(tx: &mut Tx, id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE listener SET awaited_until = NULL, spooled = 0 WHERE id = $1",
        id
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Clamps all future timestamps to `now` after the clock was set back; otherwise deadlines fire late. Spells end now,
/// monitors whose check lies in the future are checked, and alerts that were due in the future are sent.
///
/// # Errors
/// If the database is away.
pub async fn rewind(tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE listener SET stamped_at = $1, awaited_until = $1::timestamptz + (awaited_until - stamped_at) WHERE stamped_at > $1",
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE blind_spell SET started_at = least(started_at, $1::timestamptz - interval '1 microsecond'), ended_at = $1 WHERE ended_at > $1",
        now
    )
    .execute(tx.conn())
    .await?;
    // Lock in id order, as everywhere.
    sqlx::query!(
        "UPDATE monitor SET check_after = $1
        WHERE id IN (SELECT id FROM monitor WHERE last_ping_at > $1 AND check_after > $1 ORDER BY id FOR UPDATE)",
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE beat SET check_after = $1
        WHERE id IN (
            SELECT id FROM beat
            WHERE deadline_at > $1::timestamptz + make_interval(secs => period_seconds + grace_seconds) AND check_after > $1
            ORDER BY id FOR UPDATE
        )",
        now
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE worker SET check_after = $1
        WHERE id IN (
            SELECT id FROM worker
            WHERE deadline_at > $1::timestamptz + make_interval(secs => period_seconds + grace_seconds) AND check_after > $1
            ORDER BY id FOR UPDATE
        )",
        now
    )
    .execute(tx.conn())
    .await?;
    // A held delivery keeps its time, until its first attempt.
    sqlx::query!(
        "UPDATE delivery SET next_attempt_at = $1
        WHERE status = 'pending' AND created_at > $1 AND next_attempt_at > $1 AND (not_before IS NULL OR not_before <= $1 OR attempt_count > 0)",
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes the rows of processes that count as gone.
///
/// # Errors
/// If the database is away.
pub async fn forget_gone(tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!("DELETE FROM listener WHERE stamped_at < $1", now - GONE)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// True if a stored blind spell covers this one.
///
/// # Errors
/// When the database is away.
pub async fn is_known_spell(tx: &mut Tx, spell: BlindSpell) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM blind_spell WHERE started_at <= $1 AND ended_at >= $2) AS "exists!""#,
        spell.started_at,
        spell.ended_at
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Writes a blind spell.
///
/// # Errors
/// When the database is away.
pub async fn insert_spell(tx: &mut Tx, spell: BlindSpell) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO blind_spell (id, started_at, ended_at) VALUES ($1, $2, $3)",
        Uuid::now_v7(),
        spell.started_at,
        spell.ended_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the blind spells that ended after `since`, newest first, a thousand at most.
///
/// # Errors
/// When the database is away.
pub async fn spells_since(tx: &mut Tx, since: DateTime<Utc>) -> StoreResult<Vec<BlindSpell>> {
    let rows = sqlx::query_as!(
        BlindSpell,
        "SELECT started_at, ended_at FROM blind_spell WHERE ended_at > $1 ORDER BY ended_at DESC LIMIT 1000",
        since
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// A blind spell, as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// The beginning and end of the spell.
    pub spell: BlindSpell,
}

/// Returns all blind spells, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list_spells(reader: &Reader, page: Page<Uuid>) -> Result<Vec<Listed>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, started_at, ended_at FROM blind_spell WHERE ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2",
        page.after,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Listed {
            id: row.id,
            spell: BlindSpell {
                started_at: row.started_at,
                ended_at: row.ended_at,
            },
        })
        .collect())
}
