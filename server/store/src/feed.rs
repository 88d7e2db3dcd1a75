//! Tables `change` and `change_counter`: the change feed.
//!
//! A use case notes what its transaction changes ([`note`]); [`Tx::commit`] writes it. The transaction that has counted on its project's row
//! of `change_counter` keeps the row locked until its commit is visible. So whoever sees a sequence can see every lower one of that project:
//! a reader that goes on from the last sequence that it saw misses nothing.
//!
//! That lock is the last one that a transaction takes, and the commit follows at once. So it is held for one round trip and one flush of the
//! log, and no deadlock can come of it: of several projects, all transactions lock the rows in the same order.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadbeat_domain::change::feed::{Change, ChangeKind, ChangeSubject};
use deadbeat_domain::ids::ProjectId;
use uuid::Uuid;

use crate::connection::line::Line;
use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// What a transaction has changed until now.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    changes: Vec<Change>,
    known: HashSet<(ProjectId, ChangeSubject, ChangeKind)>,
}

/// Notes what a transaction changes; its commit writes it. The same change of the same subject is written once a transaction: a reader finds
/// the same state behind each of them.
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

/// Writes what was noted, in one statement. What is noted in a transaction of several projects keeps its order within each project.
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
    /// Its place in the project's feed.
    pub sequence: i64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What kind of thing changed.
    pub subject_kind: String,
    /// Its id.
    pub subject_id: Uuid,
    /// How it changed.
    pub what: String,
}

/// What a project's feed holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The newest sequence; 0: the project has had no change.
    pub newest: i64,
    /// Kept changes, oldest first.
    pub changes: Vec<Stored>,
}

/// The kept changes of a project behind a sequence, oldest first, at most `limit`, with the newest sequence at that moment.
///
/// # Errors
/// When the database is away.
pub async fn read(reader: &Reader, project: ProjectId, after: i64, limit: i64) -> StoreResult<Feed> {
    // One statement, so that both are read at one moment.
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

/// The newest sequence of a project; 0: the project has had no change. Whoever reads the project's state after this has nothing to do with
/// changes up to that sequence.
///
/// # Errors
/// When the database is away.
pub async fn newest(reader: &Reader, project: ProjectId) -> StoreResult<i64> {
    let newest = sqlx::query_scalar!("SELECT last FROM change_counter WHERE project_id = $1", project.0)
        .fetch_optional(reader.pool())
        .await?;
    Ok(newest.unwrap_or(0))
}
