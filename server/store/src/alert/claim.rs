//! The claim of the outbox: which channels have deliveries that are due, and leases on the oldest of them.
//!
//! The work of a claim does not grow with the number of waiting deliveries. [`due_channels`] steps from channel to channel in the index
//! `delivery_waiting` and reads one entry of each. [`claim`] reads only the oldest deliveries of the channels that its caller chose.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::message::Message;
use deadbeat_domain::alert::sealed::Sealed;
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use serde_json::Value;
use uuid::Uuid;

use crate::alert::channel::read_sealed;
use crate::monitor::batch::column;
use crate::{Reader, StoreError, StoreResult, Tx};

/// A channel in the order of the steps: by project, then by channel.
pub type Place = (ProjectId, ChannelId);

/// The place before every channel.
pub const START: Place = (ProjectId(Uuid::nil()), ChannelId(Uuid::nil()));

/// One claim searches for follow-up alerts only among this many due deliveries of a channel. If all of them wait for earlier alerts of their
/// incidents, the follow-ups behind them wait for a later claim. First alerts of incidents, and alerts without an incident, never wait.
const FOLLOWERS: i64 = 200;

/// A channel with a delivery that is due.
#[derive(Debug, Clone)]
pub struct DueChannel {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its id.
    pub channel_id: ChannelId,
    /// Its kind and settings. None: they cannot be read.
    pub settings: Option<Settings>,
    /// The time since which its oldest delivery has been due.
    pub due_since: DateTime<Utc>,
}

/// Some channels with deliveries that are due.
#[derive(Debug, Clone)]
pub struct Steps {
    /// In the order of [`Place`].
    pub channels: Vec<DueChannel>,
    /// Where to continue. None: these steps reached the last channel.
    pub next: Option<Place>,
}

/// Finds channels with due deliveries, starting after `after`. It ends after `most_steps` channels with pending deliveries, or after `enough`
/// channels with due ones. It reads at most the first channel of each project in `full`.
///
/// # Errors
/// When the database is away.
pub async fn due_channels(
    reader: &Reader,
    now: DateTime<Utc>,
    after: Place,
    full: &[ProjectId],
    most_steps: i32,
    enough: i32,
) -> StoreResult<Steps> {
    // Use `next_attempt_at IS NOT NULL`, not `status = 'pending'`: only the index `delivery_waiting` fits. An outbox is empty most of the time. So
    // PostgreSQL would expect an index of pending rows to be empty, and read all of it at each step of a storm.
    let rows = sqlx::query!(
        r#"
        WITH RECURSIVE step AS (
            (
                SELECT project_id, channel_id, next_attempt_at, 1 AS number, (next_attempt_at <= $1)::int4 AS found
                FROM delivery
                WHERE next_attempt_at IS NOT NULL AND (project_id, channel_id) > ($2, $3)
                ORDER BY project_id, channel_id, next_attempt_at
                LIMIT 1
            )
            UNION ALL
            SELECT next.project_id, next.channel_id, next.next_attempt_at, step.number + 1,
                step.found + (next.next_attempt_at <= $1)::int4
            FROM step CROSS JOIN LATERAL (
                SELECT project_id, channel_id, next_attempt_at
                FROM delivery
                WHERE next_attempt_at IS NOT NULL
                    AND (project_id, channel_id) > (
                        step.project_id,
                        CASE WHEN step.project_id = ANY($4) THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE step.channel_id END
                    )
                ORDER BY project_id, channel_id, next_attempt_at
                LIMIT 1
            ) AS next
            WHERE step.number < $5 AND step.found < $6
        )
        SELECT step.project_id AS "project_id!", step.channel_id AS "channel_id!", step.next_attempt_at AS "due_since!",
            (step.number >= $5 OR step.found >= $6) AS "is_last!", channel.kind, channel.settings
        FROM step JOIN channel ON channel.project_id = step.project_id AND channel.id = step.channel_id
        WHERE step.next_attempt_at <= $1 OR step.number >= $5
        ORDER BY step.number
        "#,
        now,
        after.0.0,
        after.1.0,
        &column(full, |project| project.0),
        most_steps,
        enough
    )
    .fetch_all(reader.pool())
    .await?;
    let next = rows
        .last()
        .filter(|row| row.is_last)
        .map(|row| (ProjectId(row.project_id), ChannelId(row.channel_id)));
    let channels = rows
        .into_iter()
        .filter(|row| row.due_since <= now)
        .map(|row| DueChannel {
            project_id: ProjectId(row.project_id),
            channel_id: ChannelId(row.channel_id),
            settings: Settings::of_row(row.kind, row.settings),
            due_since: row.due_since,
        })
        .collect();
    Ok(Steps { channels, next })
}

/// How many deliveries of one channel the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The channel.
    pub channel_id: ChannelId,
    /// The most deliveries to claim.
    pub count: i64,
}

/// A delivery that this process may try now.
#[derive(Clone)]
pub struct Claimed {
    /// Its id.
    pub id: DeliveryId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The lease's id.
    pub lease: Uuid,
    /// The incident that the alert is about.
    pub incident_id: Option<IncidentId>,
    /// The kind of alert.
    pub alert: Alert,
    /// The message to send.
    pub message: Message,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// When it was put into the outbox.
    pub created_at: DateTime<Utc>,
    /// When it became due: when it was created, when its hold ended, or when a person had it sent again. It is retried
    /// for a day from then on.
    pub due_since: DateTime<Utc>,
    /// Its channel.
    pub channel_id: ChannelId,
    /// The channel's destination, as stored.
    pub settings: Settings,
    /// The channel's secrets. None: the channel is not sealed yet.
    pub sealed: Option<Sealed>,
    /// Signs webhooks. None: it is sealed, or the kind does not sign.
    pub signing_secret: Option<String>,
    /// True if the channel's last attempt failed.
    pub is_failing: bool,
    /// Signs the link of a confirmation mail. None: it is sealed, or there is none.
    pub confirm_secret: Option<String>,
    /// The service's handle of the message about this incident in the channel. None: there is none, or the kind changes no messages.
    pub handle: Option<Value>,
}

/// The secrets stay out of logs.
impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claimed")
            .field("id", &self.id)
            .field("channel_id", &self.channel_id)
            .field("alert", &self.alert)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    lease: Uuid,
    incident_id: Option<Uuid>,
    alert: String,
    payload: Value,
    attempt_count: i32,
    created_at: DateTime<Utc>,
    due_since: DateTime<Utc>,
    channel_id: Uuid,
    kind: String,
    settings: Value,
    sealed: Option<Value>,
    signing_secret: Option<String>,
    is_failing: bool,
    confirm_secret: Option<String>,
    handle: Option<Value>,
}

impl TryFrom<Row> for Claimed {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("delivery {}: {what}", row.id));
        Ok(Self {
            id: DeliveryId(row.id),
            project_id: ProjectId(row.project_id),
            lease: row.lease,
            incident_id: row.incident_id.map(IncidentId),
            alert: Alert::parse(&row.alert).ok_or_else(|| corrupt("alert"))?,
            settings: Settings::of_row(row.kind, row.settings).ok_or_else(|| corrupt("settings"))?,
            sealed: read_sealed(row.sealed).map_err(|_| corrupt("sealed secrets"))?,
            message: Message::read(row.payload, row.created_at),
            attempt: row.attempt_count,
            created_at: row.created_at,
            due_since: row.due_since,
            channel_id: ChannelId(row.channel_id),
            signing_secret: row.signing_secret,
            is_failing: row.is_failing,
            confirm_secret: row.confirm_secret,
            handle: row.handle,
        })
    }
}

/// Leases the oldest due deliveries of channels. They are due again when the lease ends, so a process that dies while sending loses nothing. A
/// delivery waits until the earlier one of the same incident and channel is settled.
///
/// Skips rows that another transaction has locked. `shares` must name no channel twice.
///
/// # Errors
/// When the database is away, or [`StoreError::Corrupt`] when a row cannot be read.
pub async fn claim(
    tx: &mut Tx,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    shares: &[Share],
) -> StoreResult<Vec<Claimed>> {
    sqlx::query_as!(
        Row,
        r#"
        WITH due AS MATERIALIZED (
            SELECT share.project_id, oldest.id
            FROM UNNEST($4::uuid[], $5::uuid[], $6::int8[]) AS share (project_id, channel_id, count)
            CROSS JOIN LATERAL (
                SELECT id
                FROM (
                    SELECT id, next_attempt_at
                    FROM (
                        SELECT id, next_attempt_at
                        FROM delivery
                        WHERE project_id = share.project_id AND channel_id = share.channel_id AND next_attempt_at <= $1
                            AND (alert = 'opened' OR incident_id IS NULL)
                        ORDER BY next_attempt_at
                        LIMIT share.count
                        FOR UPDATE SKIP LOCKED
                    ) AS first
                    UNION ALL
                    SELECT id, next_attempt_at
                    FROM (
                        SELECT delivery.id, delivery.next_attempt_at
                        FROM (
                            SELECT id
                            FROM delivery
                            WHERE project_id = share.project_id AND channel_id = share.channel_id AND next_attempt_at <= $1
                            ORDER BY next_attempt_at
                            LIMIT $7
                        ) AS candidate
                        JOIN delivery ON delivery.project_id = share.project_id AND delivery.id = candidate.id
                        WHERE delivery.next_attempt_at <= $1 AND delivery.alert <> 'opened' AND delivery.incident_id IS NOT NULL
                            AND NOT EXISTS (
                                SELECT FROM delivery AS earlier
                                WHERE earlier.project_id = delivery.project_id AND earlier.incident_id = delivery.incident_id
                                    AND earlier.channel_id = delivery.channel_id
                                    AND (earlier.sequence, earlier.id) < (delivery.sequence, delivery.id)
                                    AND earlier.next_attempt_at IS NOT NULL
                                    -- One that waits for its time was never tried: it comes later.
                                    AND (earlier.attempt_count > 0 OR earlier.not_before IS NULL OR earlier.not_before <= $1)
                            )
                        ORDER BY delivery.next_attempt_at
                        LIMIT share.count
                        FOR UPDATE OF delivery SKIP LOCKED
                    ) AS follower
                ) AS both_kinds
                ORDER BY next_attempt_at
                LIMIT share.count
            ) AS oldest
        )
        UPDATE delivery
        SET next_attempt_at = $2, lease = $3, attempt_count = attempt_count + 1
        FROM due, channel
        WHERE delivery.project_id = due.project_id AND delivery.id = due.id
            AND channel.project_id = due.project_id AND channel.id = delivery.channel_id
        RETURNING delivery.id, delivery.project_id, lease AS "lease!", incident_id, alert, payload, attempt_count, delivery.created_at,
            greatest(delivery.created_at, delivery.not_before, delivery.resent_at) AS "due_since!", channel_id, channel.kind, channel.settings, channel.sealed, channel.signing_secret, channel.failing_since IS NOT NULL AS "is_failing!",
            channel.confirm_secret, (
                SELECT handle FROM message_handle
                WHERE message_handle.incident_id = delivery.incident_id AND message_handle.channel_id = delivery.channel_id
                    AND message_handle.project_id = delivery.project_id
            ) AS handle
        "#,
        now,
        lease_until,
        Uuid::new_v4(),
        &column(shares, |share| share.project_id.0),
        &column(shares, |share| share.channel_id.0),
        &column(shares, |share| share.count),
        FOLLOWERS
    )
    .fetch_all(tx.conn())
    .await?
    .into_iter()
    .map(Claimed::try_from)
    .collect()
}
