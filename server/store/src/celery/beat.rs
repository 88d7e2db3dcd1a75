//! Table `beat`.

pub mod lineage;
pub mod listing;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::beat::BeatView;
use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::ids::{BeatId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use uuid::Uuid;

use crate::celery::queue::trouble;
use crate::error::each;
use crate::monitor::batch::column;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx, Unreadable};

/// A Beat as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// Its id.
    pub id: BeatId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The Celery application's name.
    pub name: String,
    /// The host of its last report.
    pub host: Option<String>,
    /// The argument of `celery -A` where it runs. None: unknown.
    pub project_word: Option<String>,
    /// When its first report came.
    pub created_at: DateTime<Utc>,
    /// When its process last reported that its loop hangs.
    pub hung_at: Option<DateTime<Utc>>,
    /// When it last sent any entry.
    pub sent_at: Option<DateTime<Utc>>,
    /// When the broker last refused a message of it, and the broker's error.
    pub send_failed: Option<(DateTime<Utc>, String)>,
    /// When a process of its application last reported that it had to drop events, and how many.
    pub lost_events: Option<(DateTime<Utc>, i64)>,
    /// The state that the rules work on.
    pub state: Switch,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    status: String,
    period_seconds: f64,
    grace_seconds: f64,
    last_seen_at: Option<DateTime<Utc>>,
    host: Option<String>,
    project_word: Option<String>,
    deadline_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    trouble: Option<String>,
    trouble_since: Option<DateTime<Utc>>,
    hung_at: Option<DateTime<Utc>>,
    sent_at: Option<DateTime<Utc>>,
    send_failed_at: Option<DateTime<Utc>>,
    send_error: Option<String>,
    lost_at: Option<DateTime<Utc>>,
    lost_events: Option<i64>,
}

impl Beat {
    /// Returns the argument that a person types after `celery -A`.
    #[must_use]
    pub fn typed(&self) -> &str {
        self.project_word.as_deref().unwrap_or(&self.name)
    }

    /// Returns the Beat's facts that monitors' verdicts need.
    #[must_use]
    pub fn view(&self) -> BeatView {
        BeatView {
            status: self.state.status,
            last_seen_at: self.state.last_seen_at,
            deadline_at: self.state.deadline_at,
            hung_at: self.hung_at,
            sent_at: self.sent_at,
            send_failed_at: self.send_failed.as_ref().map(|(at, _)| *at),
            lost_at: self.lost_events.map(|(at, _)| at),
            skewed_since: self
                .state
                .since
                .filter(|_| self.state.trouble == Some(Cause::ClockSkew)),
            back_at: None,
        }
    }
}

impl TryFrom<Row> for Beat {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        Ok(Self {
            id: BeatId(row.id),
            project_id: ProjectId(row.project_id),
            name: row.name,
            host: row.host,
            project_word: row.project_word,
            created_at: row.created_at,
            hung_at: row.hung_at,
            sent_at: row.sent_at,
            send_failed: row.send_failed_at.zip(row.send_error),
            lost_events: row.lost_at.zip(row.lost_events),
            state: Switch {
                status: Status::parse(&row.status)
                    .ok_or_else(|| StoreError::Corrupt(format!("beat status {}", row.status)))?,
                trouble: trouble("beat", row.trouble.as_deref())?,
                since: row.trouble_since,
                period_seconds: row.period_seconds,
                grace_seconds: row.grace_seconds,
                last_seen_at: row.last_seen_at,
                deadline_at: row.deadline_at,
            },
        })
    }
}

/// How often to create the Beat again if another transaction deletes it between the insert and the lock.
const TRIES: usize = 5;

/// Locks the Beat of a name. Creates it first if there is none.
///
/// # Errors
/// If the database is away.
pub async fn lock_or_create(
    tx: &mut Tx,
    project: ProjectId,
    name: &str,
    period_seconds: f64,
    grace_seconds: f64,
    now: DateTime<Utc>,
) -> StoreResult<Beat> {
    for _ in 0..TRIES {
        sqlx::query!(
            "INSERT INTO beat (id, project_id, name, status, period_seconds, grace_seconds, created_at)
            VALUES ($1, $2, $3, 'new', $4, $5, $6)
            ON CONFLICT (project_id, name) DO NOTHING",
            BeatId::generate().0,
            project.0,
            name,
            period_seconds,
            grace_seconds,
            now
        )
        .execute(tx.conn())
        .await?;
        if let Some(beat) = lock(tx, project, name).await? {
            return Ok(beat);
        }
    }
    Err(StoreError::Corrupt(
        "a Beat was created and deleted again and again while this transaction wanted to lock it".to_owned(),
    ))
}

/// Writes Beats' states. Moves `check_after` only if necessary, or if the sweep wants it (`moves_check`).
///
/// # Errors
/// If the database is away.
pub async fn update(tx: &mut Tx, beats: &[Beat], moves_check: bool) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE beat
        SET status = new.status, period_seconds = new.period_seconds, grace_seconds = new.grace_seconds, last_seen_at = new.last_seen_at,
            host = new.host, deadline_at = new.deadline_at, trouble = new.trouble, trouble_since = new.trouble_since,
            hung_at = new.hung_at, sent_at = new.sent_at, send_failed_at = new.send_failed_at, send_error = new.send_error,
            project_word = new.project_word,
            check_after = CASE
                WHEN $8 THEN new.deadline_at
                WHEN new.deadline_at IS NULL THEN beat.check_after
                ELSE least(beat.check_after, new.deadline_at)
            END
        FROM UNNEST($1::uuid[], $2::text[], $3::float8[], $4::float8[], $5::timestamptz[], $6::text[], $7::timestamptz[],
            $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::text[], $15::text[],
            $16::uuid[])
            AS new (id, status, period_seconds, grace_seconds, last_seen_at, host, deadline_at, trouble, trouble_since, hung_at, sent_at,
                send_failed_at, send_error, project_word, project_id)
        WHERE beat.id = new.id AND beat.project_id = new.project_id",
        &column(beats, |beat| beat.id.0),
        &column(beats, |beat| beat.state.status.as_str().to_owned()),
        &column(beats, |beat| beat.state.period_seconds),
        &column(beats, |beat| beat.state.grace_seconds),
        &column(beats, |beat| beat.state.last_seen_at) as &[Option<DateTime<Utc>>],
        &column(beats, |beat| beat.host.clone()) as &[Option<String>],
        &column(beats, |beat| beat.state.deadline_at) as &[Option<DateTime<Utc>>],
        moves_check,
        &column(beats, |beat| beat.state.trouble.map(|cause| cause.as_str().to_owned())) as &[Option<String>],
        &column(beats, |beat| beat.state.since) as &[Option<DateTime<Utc>>],
        &column(beats, |beat| beat.hung_at) as &[Option<DateTime<Utc>>],
        &column(beats, |beat| beat.sent_at) as &[Option<DateTime<Utc>>],
        &column(beats, |beat| beat.send_failed.as_ref().map(|(at, _)| *at)) as &[Option<DateTime<Utc>>],
        &column(beats, |beat| beat.send_failed.as_ref().map(|(_, error)| error.clone())) as &[Option<String>],
        &column(beats, |beat| beat.project_word.clone()) as &[Option<String>],
        &column(beats, |beat| beat.project_id.0),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Claims Beats whose `check_after` has passed. Skips locked rows.
///
/// # Errors
/// If the database is away.
pub async fn claim_overdue(
    tx: &mut Tx,
    now: DateTime<Utc>,
    limit: i64,
) -> StoreResult<Vec<Result<Beat, Unreadable>>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE check_after <= $1
        ORDER BY check_after
        LIMIT $2
        FOR UPDATE SKIP LOCKED",
        now,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(each(rows, |row| (row.project_id, row.id)))
}

/// Puts an unreadable Beat aside until `until`.
///
/// # Errors
/// If the database is away.
pub async fn set_aside(tx: &mut Tx, project: ProjectId, id: Uuid, until: DateTime<Utc>) -> StoreResult<()> {
    // A Beat without a deadline stays without one: `greatest` alone would arm a Beat that is down.
    sqlx::query!(
        "UPDATE beat
        SET check_after = $2, deadline_at = CASE WHEN deadline_at IS NOT NULL THEN greatest(deadline_at, $2) END
        WHERE id = $1 AND project_id = $3",
        id,
        until,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns Beats by project and id.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn by_ids(tx: &mut Tx, ids: &[(ProjectId, BeatId)]) -> StoreResult<Vec<Beat>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(ids, |(project, _)| project.0),
        &column(ids, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Beat::try_from).collect()
}

/// Locks a Beat of a project by its id.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock_by_id(tx: &mut Tx, project: ProjectId, id: BeatId) -> StoreResult<Option<Beat>> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE project_id = $1 AND id = $2
        FOR UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Beat::try_from)
    .transpose()
}

/// Deletes a Beat. The caller has deleted its monitors ([`crate::monitor::delete_all`]): a remaining monitor would stay
/// without a Beat.
///
/// # Errors
/// If the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: BeatId) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM beat WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns how many Beats a project has.
///
/// # Errors
/// If the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM beat WHERE project_id = $1"#,
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Locks the Beat of a name, if there is one.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn lock(tx: &mut Tx, project: ProjectId, name: &str) -> StoreResult<Option<Beat>> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE project_id = $1 AND name = $2
        FOR UPDATE",
        project.0,
        name
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Beat::try_from)
    .transpose()
}

/// Notes that a process of this application had to drop events. Does nothing if there is no Beat of that name.
///
/// # Errors
/// If the database is away.
pub async fn lose_events(
    tx: &mut Tx,
    project: ProjectId,
    name: &str,
    count: i64,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE beat SET lost_at = $3, lost_events = $4 WHERE project_id = $1 AND name = $2",
        project.0,
        name,
        now,
        count
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns a project's Beats, by name.
///
/// # Errors
/// When the database is away.
pub async fn list(reader: &Reader, project: ProjectId) -> StoreResult<Vec<Beat>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE project_id = $1
        ORDER BY name",
        project.0
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Beat::try_from).collect()
}

/// Returns a project's Beats, newest first, page by page.
///
/// # Errors
/// When the database is away.
pub async fn page(reader: &Reader, project: ProjectId, page: Page<BeatId>) -> StoreResult<Vec<Beat>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, status, period_seconds, grace_seconds, last_seen_at, host, project_word, deadline_at, created_at, trouble,
            trouble_since, hung_at, sent_at, send_failed_at, send_error, lost_at, lost_events
        FROM beat
        WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Beat::try_from).collect()
}

/// Returns the processes that report as this Beat. If the stored list cannot be read, returns an empty one, because each process reports again within
/// its period.
///
/// # Errors
/// When the database is away.
pub async fn incarnations(tx: &mut Tx, project: ProjectId, id: BeatId) -> StoreResult<Vec<Incarnation>> {
    let stored = sqlx::query_scalar!(
        "SELECT incarnations FROM beat WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(stored) = stored else {
        return Ok(Vec::new());
    };
    Ok(serde_json::from_value(stored).unwrap_or_else(|error| {
        tracing::error!(beat.id = %id, %error, "the incarnations of a Beat cannot be read; the next reports replace them");
        Vec::new()
    }))
}

/// Notes the processes that report as this Beat. The caller holds the Beat's lock.
///
/// # Errors
/// When the database is away.
pub async fn note_incarnations(
    tx: &mut Tx,
    project: ProjectId,
    id: BeatId,
    known: &[Incarnation],
) -> StoreResult<()> {
    let known = serde_json::to_value(known).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    sqlx::query!(
        "UPDATE beat SET incarnations = $3 WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        known
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
