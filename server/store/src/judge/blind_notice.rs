//! Table `blind_notice`: how many monitors could not be judged because no process listened, by project and blind spell.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::judge::blind_spell::BlindSpell;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// The number of a project's monitors that could not be judged because of one blind spell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unjudged {
    /// The project.
    pub project_id: ProjectId,
    /// The blind spell.
    pub spell: BlindSpell,
    /// The number of monitors.
    pub monitors: i64,
}

/// Adds to the pending notices. `unjudged` must name each project and spell at most once. A notice that was sent is not
/// sent again.
///
/// # Errors
/// If the database is away.
pub async fn add(tx: &mut Tx, unjudged: &[Unjudged], tell_at: DateTime<Utc>) -> StoreResult<()> {
    // Sort the rows, so that two evaluators lock them in the same order and cannot deadlock.
    sqlx::query!(
        "INSERT INTO blind_notice (project_id, spell_started_at, spell_ended_at, monitors, tell_at)
        SELECT new.project_id, new.started_at, new.ended_at, new.monitors, $5
        FROM UNNEST($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::int8[]) AS new (project_id, started_at, ended_at, monitors)
        ORDER BY new.project_id, new.started_at
        ON CONFLICT (project_id, spell_started_at) DO UPDATE SET monitors = blind_notice.monitors + excluded.monitors",
        &column(unjudged, |one| one.project_id.0),
        &column(unjudged, |one| one.spell.started_at),
        &column(unjudged, |one| one.spell.ended_at),
        &column(unjudged, |one| one.monitors),
        tell_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Claims the notices that are due now. Deletes sent notices of spells that ended before `forget`.
///
/// # Errors
/// If the database is away.
pub async fn take_due(
    tx: &mut Tx,
    now: DateTime<Utc>,
    forget: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Unjudged>> {
    let rows = sqlx::query!(
        "WITH due AS MATERIALIZED (
            SELECT project_id, spell_started_at FROM blind_notice WHERE tell_at <= $1
            ORDER BY tell_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM blind_notice WHERE tell_at IS NULL AND spell_ended_at < $3
        )
        UPDATE blind_notice SET tell_at = NULL
        FROM due
        WHERE blind_notice.project_id = due.project_id AND blind_notice.spell_started_at = due.spell_started_at
        RETURNING blind_notice.project_id, blind_notice.spell_started_at, spell_ended_at, monitors",
        now,
        limit,
        forget
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Unjudged {
            project_id: ProjectId(row.project_id),
            spell: BlindSpell {
                started_at: row.spell_started_at,
                ended_at: row.spell_ended_at,
            },
            monitors: row.monitors,
        })
        .collect())
}
