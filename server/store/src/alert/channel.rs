//! Table `channel`.

mod consent;

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::recipients;
use deadbeat_domain::alert::routing::Routing;
use deadbeat_domain::alert::sealed::Sealed;
use deadbeat_domain::ids::{ChannelId, MonitorId, MonitorKey, ProjectId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::page::Page;
use crate::{Reader, StoreError, StoreResult, Tx};
pub use consent::{agree_again, confirm, is_known_address, is_refused, unsubscribe};

/// A channel as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its name for people.
    pub name: String,
    /// Its kind, and its destination.
    pub settings: Settings,
    /// Its secrets. None: the channel is not sealed yet, and its settings and the two secrets below are in clear.
    pub sealed: Option<Sealed>,
    /// Which alerts about incidents it gets, and when.
    pub routing: Routing,
    /// Signs its webhooks. None: it is sealed, or the kind does not sign.
    pub signing_secret: Option<String>,
    /// When it was switched off, and why.
    pub disabled: Option<(DateTime<Utc>, String)>,
    /// When the owner of a mail address agreed to mail. None: not yet, or the kind needs no confirmation.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Signs the link in the confirmation mail. Whoever knows this secret can confirm, so no interface shows it. None: it is sealed, or there is
    /// none.
    pub confirm_secret: Option<String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Channel {
    /// True if alerts may go to it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed_at.is_some() || !self.settings.needs_confirmation()
    }
}

/// The secrets stay out of logs.
impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("kind", &self.settings.kind())
            .finish_non_exhaustive()
    }
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    kind: String,
    name: String,
    settings: Value,
    sealed: Option<Value>,
    rules: Option<Value>,
    signing_secret: Option<String>,
    disabled_at: Option<DateTime<Utc>>,
    disabled_reason: Option<String>,
    confirmed_at: Option<DateTime<Utc>>,
    confirm_secret: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Channel {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let settings = Settings::of_row(row.kind, row.settings)
            .ok_or_else(|| StoreError::Corrupt(format!("channel {}: settings", row.id)))?;
        let sealed = read_sealed(row.sealed)
            .map_err(|_| StoreError::Corrupt(format!("channel {}: sealed secrets", row.id)))?;
        Ok(Self {
            id: ChannelId(row.id),
            project_id: ProjectId(row.project_id),
            name: row.name,
            settings,
            sealed,
            routing: Routing::of_row(row.rules.as_ref()),
            signing_secret: row.signing_secret,
            disabled: row.disabled_at.zip(row.disabled_reason),
            confirmed_at: row.confirmed_at,
            confirm_secret: row.confirm_secret,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Reads the column `sealed`.
pub(crate) fn read_sealed(value: Option<Value>) -> Result<Option<Sealed>, serde_json::Error> {
    value.map(serde_json::from_value).transpose()
}

/// Writes the column `sealed`.
pub(crate) fn sealed_json(sealed: Option<&Sealed>) -> Option<Value> {
    sealed.map(|sealed| json!({"key": sealed.key, "values": sealed.values}))
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT id, project_id, kind, name, settings, sealed, rules, signing_secret, disabled_at, disabled_reason, confirmed_at, confirm_secret,
                created_at, updated_at
            FROM channel
            " + $tail
            $(, $argument)*
        )
    };
}

/// Writes a new channel.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, channel: &Channel) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO channel (id, project_id, kind, name, settings, signing_secret, created_at, updated_at, confirmed_at, confirm_secret,
            sealed, rules)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11)",
        channel.id.0,
        channel.project_id.0,
        channel.settings.kind(),
        channel.name,
        channel.settings.to_json(),
        channel.signing_secret,
        channel.created_at,
        channel.confirmed_at,
        channel.confirm_secret,
        sealed_json(channel.sealed.as_ref()),
        Value::Object(channel.routing.to_json())
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed channel.
///
/// # Errors
/// When the database is away.
pub async fn update(tx: &mut Tx, channel: &Channel) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE channel
        SET name = $3, settings = $4, disabled_at = $5, disabled_reason = $6, updated_at = $7, confirmed_at = $8, confirm_secret = $9,
            signing_secret = $10, sealed = $11, rules = $12
        WHERE project_id = $1 AND id = $2",
        channel.project_id.0,
        channel.id.0,
        channel.name,
        channel.settings.to_json(),
        channel.disabled.as_ref().map(|(at, _)| *at),
        channel.disabled.as_ref().map(|(_, reason)| reason.clone()),
        channel.updated_at,
        channel.confirmed_at,
        channel.confirm_secret,
        channel.signing_secret,
        sealed_json(channel.sealed.as_ref()),
        Value::Object(channel.routing.to_json())
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Locks a channel that is about to be switched off, and its project first. So a project switches off one channel at a time.
///
/// Every caller locks in this order: project, channel, deliveries. A settlement that locked its delivery before the channel deadlocked with another
/// settlement of the same channel.
///
/// # Errors
/// When the database is away.
pub async fn lock_to_disable(tx: &mut Tx, project: ProjectId, id: ChannelId) -> StoreResult<Option<Channel>> {
    // NO KEY UPDATE lets others write rows that refer to the project or the channel.
    sqlx::query!(
        "SELECT id FROM project WHERE id = $1 FOR NO KEY UPDATE",
        project.0
    )
    .fetch_optional(tx.conn())
    .await?;
    select!(
        "WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?
    .map(Channel::try_from)
    .transpose()
}

/// Switches a channel off after a permanent failure, and cancels its pending deliveries. False: somebody changed the channel after `as_of`, and may
/// have repaired it, or it was off already. The caller holds the channel's lock ([`lock_to_disable`]).
///
/// # Errors
/// When the database is away.
pub async fn disable(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
    reason: &str,
    as_of: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE channel SET disabled_at = $3, disabled_reason = $2, failing_since = coalesce(failing_since, $3)
        WHERE project_id = $5 AND id = $1 AND updated_at <= $4 AND disabled_at IS NULL",
        id.0,
        reason,
        now,
        as_of,
        project.0
    )
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    cancel_waiting(tx, project, id, now).await?;
    Ok(true)
}

/// Cancels what waits for a channel that was switched off.
async fn cancel_waiting(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE delivery
        SET status = 'cancelled', cancel_reason = 'channel_disabled', next_attempt_at = NULL, lease = NULL, settled_at = $2
        WHERE project_id = $3 AND channel_id = $1 AND next_attempt_at IS NOT NULL",
        id.0,
        now,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes since when a channel's attempts have failed. None: an attempt succeeded.
///
/// # Errors
/// When the database is away.
pub async fn set_failing(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
    since: Option<DateTime<Utc>>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE channel SET failing_since = $3
        WHERE project_id = $1 AND id = $2 AND (failing_since IS NULL) = ($3::timestamptz IS NOT NULL)",
        project.0,
        id.0,
        since
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that the project's other channels got a notice that this one was switched off.
///
/// # Errors
/// When the database is away.
pub async fn note_reported(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE channel SET told_of_at = $3 WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Locks one channel of a project.
///
/// # Errors
/// When the database is away.
pub async fn lock(tx: &mut Tx, project: ProjectId, id: ChannelId) -> StoreResult<Option<Channel>> {
    select!("WHERE project_id = $1 AND id = $2 FOR UPDATE", project.0, id.0)
        .fetch_optional(tx.conn())
        .await?
        .map(Channel::try_from)
        .transpose()
}

/// Returns one channel of a project.
///
/// # Errors
/// When the database is away.
pub async fn get(reader: &Reader, project: ProjectId, id: ChannelId) -> StoreResult<Option<Channel>> {
    select!("WHERE project_id = $1 AND id = $2", project.0, id.0)
        .fetch_optional(reader.pool())
        .await?
        .map(Channel::try_from)
        .transpose()
}

/// Returns the project of a channel. For the operator's command line, which gets only the channel's id.
///
/// # Errors
/// When the database is away.
pub async fn owner(reader: &Reader, id: ChannelId) -> StoreResult<Option<ProjectId>> {
    let project = sqlx::query_scalar!("SELECT project_id FROM channel WHERE id = $1", id.0)
        .fetch_optional(reader.pool())
        .await?;
    Ok(project.map(ProjectId))
}

/// Returns one channel of any project. For the link of a confirmation mail, which proves itself by its signature.
///
/// # Errors
/// When the database is away.
pub async fn for_confirmation(reader: &Reader, id: ChannelId) -> StoreResult<Option<Channel>> {
    select!("WHERE id = $1 AND kind = 'email'", id.0)
        .fetch_optional(reader.pool())
        .await?
        .map(Channel::try_from)
        .transpose()
}

/// Returns a channel as [`for_confirmation`] does, and locks it, so that its address and secret cannot change.
///
/// # Errors
/// When the database is away.
pub async fn lock_for_confirmation(tx: &mut Tx, id: ChannelId) -> StoreResult<Option<Channel>> {
    select!("WHERE id = $1 AND kind = 'email' FOR UPDATE", id.0)
        .fetch_optional(tx.conn())
        .await?
        .map(Channel::try_from)
        .transpose()
}

/// Returns a project's channels, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(reader: &Reader, project: ProjectId, page: Page<ChannelId>) -> StoreResult<Vec<Channel>> {
    let rows = select!(
        "WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter().map(Channel::try_from).collect()
}

/// Returns the number of channels of a project.
///
/// # Errors
/// When the database is away.
pub async fn count(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM channel WHERE project_id = $1",
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns the channels that people chose for monitors. The answer leaves out monitors that alert every channel.
///
/// # Errors
/// When the database is away.
pub async fn chosen_by(
    tx: &mut Tx,
    monitors: &[MonitorKey],
) -> StoreResult<HashMap<MonitorId, BTreeSet<ChannelId>>> {
    let rows = sqlx::query!(
        r#"
        SELECT monitor.id AS "monitor_id!", channel_id AS "channel_id?"
        FROM monitor
            LEFT JOIN monitor_channel
                ON monitor_channel.project_id = monitor.project_id AND monitor_channel.monitor_id = monitor.id
        WHERE (monitor.project_id, monitor.id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[])) AND NOT monitor.all_channels
        "#,
        &column(monitors, |(project, _)| project.0),
        &column(monitors, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    let mut chosen: HashMap<MonitorId, BTreeSet<ChannelId>> = HashMap::new();
    for row in rows {
        chosen
            .entry(MonitorId(row.monitor_id))
            .or_default()
            .extend(row.channel_id.map(ChannelId));
    }
    Ok(chosen)
}

/// Returns every channel of projects, with the values that decide which alerts it gets, in id order.
///
/// # Errors
/// When the database is away.
pub async fn for_alerts(
    tx: &mut Tx,
    projects: &[ProjectId],
) -> StoreResult<HashMap<ProjectId, Vec<recipients::Channel>>> {
    let rows = sqlx::query!(
        r#"
        SELECT project_id, id, disabled_at IS NOT NULL AS "is_disabled!", kind <> 'email' OR confirmed_at IS NOT NULL AS "is_confirmed!",
            failing_since IS NOT NULL AS "is_failing!", told_of_at, rules
        FROM channel
        WHERE project_id = ANY($1)
        ORDER BY id
        "#,
        &column(projects, |id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    let mut channels: HashMap<ProjectId, Vec<recipients::Channel>> = HashMap::new();
    for row in rows {
        channels
            .entry(ProjectId(row.project_id))
            .or_default()
            .push(recipients::Channel {
                id: ChannelId(row.id),
                is_disabled: row.is_disabled,
                is_confirmed: row.is_confirmed,
                is_failing: row.is_failing,
                reported_at: row.told_of_at,
                routing: Routing::of_row(row.rules.as_ref()),
            });
    }
    Ok(channels)
}

/// Deletes a channel with its deliveries. False: there was none.
///
/// # Errors
/// When the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: ChannelId) -> StoreResult<bool> {
    let done = sqlx::query!(
        "DELETE FROM channel WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}
