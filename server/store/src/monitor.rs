//! Table `monitor`.

mod alarm;
pub mod baseline;
pub mod batch;
mod delete;
pub mod ping;
pub mod run;
pub mod settings;
pub mod transition;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{BeatId, MonitorId, MonitorKey, PingId, ProjectId};
use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use serde_json::Value;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::page::Page;
use crate::schedule::memo;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A monitor as stored. Its `state.runs` are not loaded here: [`crate::monitor::run::load_into`] loads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// Its id.
    pub id: MonitorId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The capability in its ping URL.
    pub ping_id: PingId,
    /// Its name in URLs, unique within the project.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// For filters.
    pub tags: Vec<String>,
    /// True if every channel of the project gets its alerts.
    pub all_channels: bool,
    /// How urgent the monitor's own incidents are. None: each incident is as urgent as its cause.
    pub severity: Option<Severity>,
    /// The Beat that registered it.
    pub beat_id: Option<BeatId>,
    /// Its entry's name in that Beat's schedule.
    pub entry: Option<String>,
    /// The entry as Beat last reported it.
    pub registered: Option<Value>,
    /// When its entry left Beat's schedule.
    pub retired_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its settings last changed.
    pub updated_at: DateTime<Utc>,
    /// Number of open runs.
    pub open_runs: i32,
    /// The state that the rules work on.
    pub state: MonitorState,
}

/// The columns of a monitor that a signal needs, with the row locked. Every ping reads them, so they are only a tenth
/// of all columns.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalledMonitor {
    /// Its id.
    pub id: MonitorId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The capability in its ping URL.
    pub ping_id: PingId,
    /// Number of open runs.
    pub open_runs: i32,
    /// The state that the rules work on.
    pub state: MonitorState,
}

/// A locked monitor whose runs can be loaded ([`crate::monitor::run::load_into`]) and whose state can be written ([`crate::monitor::batch::write`]).
pub trait Stateful {
    /// Returns the monitor's project and id.
    fn key(&self) -> MonitorKey;
    /// Returns the number of open runs, as stored.
    fn open_runs(&self) -> i32;
    /// Returns the state that the rules work on.
    fn state_mut(&mut self) -> &mut MonitorState;
    /// Returns the monitor's key and state, for [`crate::monitor::batch::write`].
    fn changed(&self) -> (MonitorKey, &MonitorState);
}

macro_rules! stateful {
    ($($kind:ty),+) => {$(
        impl Stateful for $kind {
            fn key(&self) -> MonitorKey {
                (self.project_id, self.id)
            }
            fn open_runs(&self) -> i32 {
                self.open_runs
            }
            fn state_mut(&mut self) -> &mut MonitorState {
                &mut self.state
            }
            fn changed(&self) -> (MonitorKey, &MonitorState) {
                (self.key(), &self.state)
            }
        }
    )+};
}
stateful!(Monitor, SignalledMonitor);

/// A row whose schedule or status cannot be read. The caller puts the row aside, so that it never delays the others.
#[derive(Debug)]
pub struct Unreadable {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The monitor's id.
    pub id: MonitorId,
    /// The name of the monitor's entry in its Beat's schedule.
    pub entry: Option<String>,
    /// Why the row cannot be read.
    pub error: StoreError,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    ping_id: Uuid,
    slug: String,
    name: String,
    tags: Vec<String>,
    schedule: String,
    delay_seconds: f64,
    grace_seconds: f64,
    longest_run_seconds: Option<f64>,
    all_channels: bool,
    severity: Option<String>,
    beat_id: Option<Uuid>,
    entry: Option<String>,
    registered: Option<Value>,
    retired_at: Option<DateTime<Utc>>,
    status: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    ping_count: i64,
    last_ping_at: Option<DateTime<Utc>>,
    last_success_at: Option<DateTime<Utc>>,
    decided_at: Option<DateTime<Utc>>,
    plain_end_at: Option<DateTime<Utc>>,
    last_duration_ms: Option<i64>,
    open_runs: i32,
    next_due_at: Option<DateTime<Utc>>,
    hinted_due_at: Option<DateTime<Utc>>,
    postponed_from: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    hold_until: Option<DateTime<Utc>>,
    failure_threshold: i16,
    recovery_threshold: i16,
    alarm: Option<String>,
    streak: Option<i16>,
    streak_since: Option<DateTime<Utc>>,
    opened_lately: Option<Vec<DateTime<Utc>>>,
    flapping_since: Option<DateTime<Utc>>,
    calm_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Monitor {
    type Error = Unreadable;

    fn try_from(row: Row) -> Result<Self, Unreadable> {
        let id = MonitorId(row.id);
        let corrupt = |what: String| Unreadable {
            project_id: ProjectId(row.project_id),
            id,
            entry: row.entry.clone(),
            error: StoreError::Corrupt(format!("monitor {id}: {what}")),
        };
        let schedule = memo::read(&row.schedule).map_err(|error| corrupt(error.to_string()))?;
        let status = Status::parse(&row.status).ok_or_else(|| corrupt(format!("status {}", row.status)))?;
        Ok(Self {
            id,
            project_id: ProjectId(row.project_id),
            ping_id: PingId(row.ping_id),
            slug: row.slug,
            name: row.name,
            tags: row.tags,
            all_channels: row.all_channels,
            severity: row.severity.as_deref().and_then(Severity::parse),
            beat_id: row.beat_id.map(BeatId),
            entry: row.entry,
            registered: row.registered,
            retired_at: row.retired_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            open_runs: row.open_runs,
            state: MonitorState {
                expectation: Expectation {
                    schedule,
                    delay_seconds: row.delay_seconds,
                    grace_seconds: row.grace_seconds,
                    longest_run_seconds: row.longest_run_seconds,
                },
                thresholds: alarm::thresholds(row.failure_threshold, row.recovery_threshold),
                status,
                alarm: alarm::read(row.alarm.as_deref(), row.streak, row.streak_since),
                flaps: alarm::flaps(row.opened_lately, row.flapping_since, row.calm_at),
                raised_after: None,
                by_beat: row.beat_id.is_some(),
                retired: row.retired_at.is_some(),
                ping_count: row.ping_count,
                last_ping_at: row.last_ping_at,
                last_success_at: row.last_success_at,
                decided_at: row.decided_at,
                plain_end_at: row.plain_end_at,
                last_duration: row.last_duration_ms.map(TimeDelta::milliseconds),
                next_due_at: row.next_due_at,
                hinted_due_at: row.hinted_due_at,
                postponed_from: row.postponed_from,
                deadline_at: row.deadline_at,
                hold_until: row.hold_until,
                runs: Vec::new(),
                baseline: None,
            },
        })
    }
}

fn whole(rows: Vec<Row>) -> StoreResult<Vec<Monitor>> {
    rows.into_iter()
        .map(|row| Monitor::try_from(row).map_err(|unreadable| unreadable.error))
        .collect()
}

fn one(row: Option<Row>) -> StoreResult<Option<Monitor>> {
    Ok(whole(row.into_iter().collect())?.pop())
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"
            SELECT id, project_id, ping_id, slug, name, tags, schedule::text AS "schedule!", delay_seconds, grace_seconds, longest_run_seconds, all_channels,
                severity, beat_id, entry,
                registered, retired_at, status, created_at, updated_at, ping_count, last_ping_at, last_success_at, decided_at, plain_end_at, last_duration_ms,
                open_runs, next_due_at, hinted_due_at, postponed_from, deadline_at, hold_until, failure_threshold, recovery_threshold, alarm, streak,
                streak_since, opened_lately, flapping_since, calm_at
            FROM monitor
            "# + $tail
            $(, $argument)*
        )
    };
}

// These modules use the macro above, so they must follow it.
pub mod healthchecks;
mod lock;
mod resolve;

pub use delete::{delete, delete_all};
pub use lock::{
    Held, claim_overdue, existing, judge_runs_of, lock, lock_after, lock_by_slug, lock_entries,
    lock_for_signals, lock_free, lock_members, lock_of_beat, lock_of_workers, lock_unlisted,
};
pub use resolve::{Resolved, ping_ids, resolve_entries, resolve_slugs, tags_of_slug};

/// Writes new monitors.
///
/// # Errors
/// `monitor_slug_unique` if a monitor of the project has that slug already.
pub async fn insert(tx: &mut Tx, monitors: &[&Monitor]) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, longest_run_seconds, all_channels,
            beat_id, entry, status, created_at, updated_at, next_due_at, hinted_due_at, deadline_at, check_after, registered, retired_at,
            delay_seconds, severity, failure_threshold, recovery_threshold)
        SELECT id, project_id, ping_id, slug, name, ARRAY(SELECT jsonb_array_elements_text(tags)), schedule, grace_seconds, longest_run_seconds,
            all_channels, beat_id, entry, status, created_at, created_at, next_due_at, hinted_due_at, deadline_at, deadline_at, registered,
            retired_at, delay_seconds, severity, failure_threshold, recovery_threshold
        FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[], $8::float8[], $9::float8[],
            $10::bool[], $11::uuid[], $12::text[], $13::text[], $14::timestamptz[], $15::timestamptz[], $16::timestamptz[],
            $17::timestamptz[], $18::jsonb[], $19::timestamptz[], $20::float8[], $21::text[],
            $22::int2[], $23::int2[])
            AS new (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, longest_run_seconds, all_channels, beat_id, entry,
                status, created_at, next_due_at, hinted_due_at, deadline_at, registered, retired_at, delay_seconds, severity, failure_threshold,
                recovery_threshold)",
        &column(monitors, |monitor| monitor.id.0),
        &column(monitors, |monitor| monitor.project_id.0),
        &column(monitors, |monitor| monitor.ping_id.0),
        &column(monitors, |monitor| monitor.slug.clone()),
        &column(monitors, |monitor| monitor.name.clone()),
        &column(monitors, |monitor| Value::from(monitor.tags.clone())),
        &column(monitors, |monitor| monitor.state.expectation.schedule.to_json()),
        &column(monitors, |monitor| monitor.state.expectation.grace_seconds),
        &column(monitors, |monitor| monitor.state.expectation.longest_run_seconds) as &[Option<f64>],
        &column(monitors, |monitor| monitor.all_channels),
        &column(monitors, |monitor| monitor.beat_id.map(|id| id.0)) as &[Option<Uuid>],
        &column(monitors, |monitor| monitor.entry.clone()) as &[Option<String>],
        &column(monitors, |monitor| monitor.state.status.as_str().to_owned()),
        &column(monitors, |monitor| monitor.created_at),
        &column(monitors, |monitor| monitor.state.next_due_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |monitor| monitor.state.hinted_due_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |monitor| monitor.state.deadline_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |monitor| monitor.registered.clone()) as &[Option<Value>],
        &column(monitors, |monitor| monitor.retired_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |monitor| monitor.state.expectation.delay_seconds),
        &column(monitors, |monitor| monitor.severity.map(|severity| severity.as_str().to_owned())) as &[Option<String>],
        &column(monitors, |monitor| alarm::small(monitor.state.thresholds.failures)),
        &column(monitors, |monitor| alarm::small(monitor.state.thresholds.recoveries)),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of monitors of a project.
///
/// # Errors
/// If the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM monitor WHERE project_id = $1",
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns one monitor of a project.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn get(reader: &Reader, project: ProjectId, id: MonitorId) -> StoreResult<Option<Monitor>> {
    one(select!("WHERE project_id = $1 AND id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?)
}

/// Returns the project's monitor of that slug.
///
/// # Errors
/// When the database is away, or the row cannot be read.
pub async fn by_slug(reader: &Reader, project: ProjectId, slug: &str) -> StoreResult<Option<Monitor>> {
    one(select!("WHERE project_id = $1 AND slug = $2", project.0, slug)
        .fetch_optional(reader.pool())
        .await?)
}

/// The filter of a list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Monitors that have all of these tags.
    pub tags: Vec<String>,
    /// Monitors with this slug.
    pub slug: Option<String>,
    /// Monitors with this stored status.
    pub status: Option<Status>,
    /// True: only monitors that are past due. False: only the others.
    pub late: Option<bool>,
    /// Monitors with this text in the name or slug, in any case.
    pub search: Option<String>,
}

/// Returns a project's monitors, newest first.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    filter: &Filter,
    page: Page<MonitorId>,
    now: DateTime<Utc>,
) -> StoreResult<Vec<Monitor>> {
    whole(
        select!(
            "WHERE project_id = $1
                AND ($2::uuid IS NULL OR id < $2)
                AND tags @> $3
                AND ($4::text IS NULL OR slug = $4)
                AND ($5::text[] IS NULL OR status = ANY($5))
                AND ($6::boolean IS NULL
                    OR $6 = (status IN ('new', 'up') AND deadline_at IS NOT NULL AND coalesce(next_due_at <= $7, false)))
                AND ($8::text IS NULL OR position(lower($8) IN lower(name)) > 0 OR position(lower($8) IN slug) > 0)
            ORDER BY id DESC
            LIMIT $9",
            project.0,
            page.after.map(|id| id.0),
            &filter.tags,
            filter.slug,
            filter.status.map(|status| vec![status.as_str().to_owned()]) as _,
            filter.late,
            now,
            filter.search,
            page.limit,
        )
        .fetch_all(reader.pool())
        .await?,
    )
}

/// Counts a project's monitors by the status that is shown: (new, up, late, down, paused).
///
/// # Errors
/// When the database is away.
pub async fn counts(reader: &Reader, project: ProjectId, now: DateTime<Utc>) -> StoreResult<[i64; 5]> {
    let row = sqlx::query!(
        r#"
        SELECT count(*) FILTER (WHERE status = 'new' AND NOT late) AS "new!", count(*) FILTER (WHERE status = 'up' AND NOT late) AS "up!",
            count(*) FILTER (WHERE late) AS "late!", count(*) FILTER (WHERE status = 'down') AS "down!",
            count(*) FILTER (WHERE status = 'paused') AS "paused!"
        FROM (
            SELECT status,
                status IN ('new', 'up') AND deadline_at IS NOT NULL AND coalesce(next_due_at <= $2, false) AS late
            FROM monitor
            WHERE project_id = $1
        ) AS shown
        "#,
        project.0,
        now
    )
    .fetch_one(reader.pool())
    .await?;
    Ok([row.new, row.up, row.late, row.down, row.paused])
}

/// Returns the monitors of these entries of a Beat.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn of_entries(
    tx: &mut Tx,
    project: ProjectId,
    beat: BeatId,
    entries: &[String],
) -> StoreResult<Vec<Monitor>> {
    let rows = select!(
        "WHERE project_id = $1 AND beat_id = $2 AND entry = ANY($3)",
        project.0,
        beat.0,
        entries
    )
    .fetch_all(tx.conn())
    .await?;
    whole(rows)
}

/// Returns the monitors of these keys with all columns, for alerts about them.
///
/// # Errors
/// When the database is away, or a row cannot be read.
pub async fn by_keys(tx: &mut Tx, keys: &[MonitorKey]) -> StoreResult<Vec<Monitor>> {
    let rows = select!(
        "WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(keys, |(project, _)| project.0),
        &column(keys, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    whole(rows)
}

/// Puts an unreadable monitor aside until `until`.
///
/// # Errors
/// When the database is away.
pub async fn set_aside(
    tx: &mut Tx,
    project: ProjectId,
    id: MonitorId,
    until: DateTime<Utc>,
) -> StoreResult<()> {
    // A monitor without a deadline gets no hold: if the monitor is down or paused, nothing would end the hold.
    sqlx::query!(
        "UPDATE monitor
        SET check_after = $2, hold_until = CASE WHEN deadline_at IS NOT NULL THEN greatest(hold_until, $2) END
        WHERE id = $1 AND project_id = $3",
        id.0,
        until,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
