//! Tables `change` and `change_counter`: the change feed.
//!
//! A use case notes the changes of its transaction ([`note`]); [`Tx::commit`] writes them. To number its changes, a transaction increments its
//! project's row of `change_counter`, and keeps that row locked until its commit is visible. So a reader that sees a sequence can also see every
//! lower one of that project. A reader that continues after the last sequence it saw misses nothing.
//!
//! A transaction takes that lock last, and commits at once. So it holds the lock for one round trip and one flush of the log. No deadlock can come of
//! it: a transaction of several projects locks their rows in the same order as every other one.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadbeat_domain::change::feed::{Change, ChangeKind, ChangeSubject};
use deadbeat_domain::ids::ProjectId;
use uuid::Uuid;

use crate::connection::line::Line;
use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// The changes that a transaction has made so far.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    changes: Vec<Change>,
    known: HashSet<(ProjectId, ChangeSubject, ChangeKind)>,
}

/// Notes the changes of a transaction; its commit writes them. A transaction writes the same change of the same subject once: a reader finds the same
/// state after each repetition.
pub fn note(tx: &mut Tx, changes: impl IntoIterator<Item = Change>) {
    let Noted {
        changes: noted,
        known,
    } = &mut tx.changes;
    noted.extend(
        changes
            .into_iter()
            .filter(|one| known.insert((one.project_id, one.subject, one.what))),
    );
}

/// Writes the noted changes in one statement. The changes of one project keep their order.
pub(crate) async fn write(line: &mut Line, noted: &Noted) -> StoreResult<()> {
    let changes = noted.changes.as_slice();
    if changes.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH noted AS MATERIALIZED (
            SELECT *
            FROM UNNEST($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[], $5::text[]) WITH ORDINALITY
                AS noted (project_id, at, subject_kind, subject_id, what, place)
        ), counted AS (
            -- In the order of the projects, as every other transaction locks them.
            INSERT INTO change_counter AS counter (project_id, last)
            SELECT project_id, count(*) FROM noted GROUP BY project_id ORDER BY project_id
            ON CONFLICT (project_id) DO UPDATE SET last = counter.last + excluded.last
            RETURNING project_id, last
        )
        INSERT INTO change (project_id, sequence, at, subject_kind, subject_id, what)
        SELECT project_id, last + 1 - row_number() OVER (PARTITION BY project_id ORDER BY place DESC), at, subject_kind, subject_id, what
        FROM noted JOIN counted USING (project_id)",
        &column(changes, |one| one.project_id.0),
        &column(changes, |one| one.at),
        &column(changes, |one| one.subject.kind().to_owned()),
        &column(changes, |one| one.subject.id()),
        &column(changes, |one| one.what.as_str().to_owned()),
    )
    .execute(line)
    .await?;
    Ok(())
}

/// A change as stored. A newer server may have written kinds that this one does not know, so they stay texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The change's place in the project's feed.
    pub sequence: i64,
    /// When the change happened.
    pub at: DateTime<Utc>,
    /// The kind of the changed thing.
    pub subject_kind: String,
    /// The changed thing's id.
    pub subject_id: Uuid,
    /// The kind of the change.
    pub what: String,
}

/// An answer from a project's feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The newest sequence; 0: the project has had no change.
    pub newest: i64,
    /// Kept changes, oldest first.
    pub changes: Vec<Stored>,
}

/// Returns the kept changes of a project after a sequence, oldest first, at most `limit`, with the newest sequence at that moment.
///
/// # Errors
/// When the database is away.
pub async fn read(reader: &Reader, project: ProjectId, after: i64, limit: i64) -> StoreResult<Feed> {
    // One statement reads both at the same moment.
    let rows = sqlx::query!(
        r#"SELECT counter.newest AS "newest!", kept.sequence AS "sequence?", kept.at AS "at?", kept.subject_kind AS "subject_kind?",
            kept.subject_id AS "subject_id?", kept.what AS "what?"
        FROM (SELECT coalesce((SELECT last FROM change_counter WHERE project_id = $1), 0) AS newest) AS counter
            LEFT JOIN (
                SELECT sequence, at, subject_kind, subject_id, what
                FROM change
                WHERE project_id = $1 AND sequence > $2
                ORDER BY sequence
                LIMIT $3
            ) AS kept ON true
        ORDER BY kept.sequence"#,
        project.0,
        after,
        limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(Feed {
        newest: rows.first().map_or(0, |row| row.newest),
        changes: rows
            .into_iter()
            .filter_map(|row| {
                Some(Stored {
                    sequence: row.sequence?,
                    at: row.at?,
                    subject_kind: row.subject_kind?,
                    subject_id: row.subject_id?,
                    what: row.what?,
                })
            })
            .collect(),
    })
}

/// Returns the newest sequence of a project; 0: the project has had no change. A caller that reads the project's state after this can ignore changes
/// up to that sequence.
///
/// # Errors
/// When the database is away.
pub async fn newest(reader: &Reader, project: ProjectId) -> StoreResult<i64> {
    let newest = sqlx::query_scalar!("SELECT last FROM change_counter WHERE project_id = $1", project.0)
        .fetch_optional(reader.pool())
        .await?;
    Ok(newest.unwrap_or(0))
}
