//! Tables `listener` and `blind_spell`: who takes signals in, and when nobody did.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use uuid::Uuid;

use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};

/// Any number, the same in every process: "stamps one after the other".
const LOCK: i64 = 0x6c69_7374_656e_6572;

/// A row that was not stamped for this long is a process that is gone.
const GONE: TimeDelta = TimeDelta::days(1);

/// A spool counts while its process has stamped within so much.
pub(crate) const SPOOL_COUNTS: TimeDelta = TimeDelta::minutes(1);

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Its name: that of its spool, where it has one.
    pub id: Uuid,
    /// Signals in its spool.
    pub spooled: i64,
    /// Until when others wait for it when it says no more. None: it cannot hold anything.
    pub awaited_until: Option<DateTime<Utc>>,
    /// Where signals were sent that it set aside a moment ago: their monitors are not judged yet.
    pub aside: Addresses,
}

/// Where signals were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Ping ids.
    pub ping_ids: Vec<Uuid>,
    /// Digests of ping keys, each with the slug of the same place.
    pub digests: Vec<Vec<u8>>,
    /// Slugs.
    pub slugs: Vec<String>,
}

/// What was said before a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// The newest word of any process. None: there never was one.
    pub any: Option<DateTime<Utc>>,
    /// The newest word of the same process, if others still wait for it.
    pub own: Option<DateTime<Utc>>,
}

/// Says that this process listens. Answers what was said before; the next one to stamp waits until this transaction ends, so that of
/// several processes one sees the gap.
///
/// # Errors
/// When the database is away.
pub async fn stamp(tx: &mut Tx, stamp: Stamp, now: DateTime<Utc>) -> StoreResult<Before> {
    // A stamp that is lost with a crash of PostgreSQL lengthens a spell; one that waits for a slow disk would make one where there is none.
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

/// Nobody listened since then: those that were waited for when that began are waited for until this instant.
///
/// # Errors
/// When the database is away.
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

/// This process stops and holds nothing: nobody waits for it. Its row stays, because the newest word of all tells when nobody listened.
///
/// # Errors
/// When the database is away.
pub async fn sign_off(tx: &mut Tx, id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE listener SET awaited_until = NULL, spooled = 0 WHERE id = $1",
        id
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The clock was stepped back: nothing that was noted in times to come may keep anybody from being missed until then. Spells end now,
/// who was heard then is looked at again, alerts of then are sent.
///
/// # Errors
/// When the database is away.
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
    // Locked in the order of ids, as everywhere.
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
    sqlx::query!(
        "UPDATE delivery SET next_attempt_at = $1 WHERE status = 'pending' AND created_at > $1 AND next_attempt_at > $1",
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets processes that are gone.
///
/// # Errors
/// When the database is away.
pub async fn forget_gone(tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!("DELETE FROM listener WHERE stamped_at < $1", now - GONE)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whether a spell is known that covers this one.
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

/// Writes a spell.
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

/// The spells that ended after `since`, newest first, a thousand at most.
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

/// A spell as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// From when to when.
    pub spell: BlindSpell,
}

/// All spells, newest first.
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
