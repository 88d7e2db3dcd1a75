//! Table `delivery`: the outbox.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::alert::recipients::{History, Recipient};
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::page::Page;
use crate::{Reader, StoreResult, Tx};

/// A message and its recipients.
#[derive(Debug, Clone)]
pub struct NewAlert {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The message.
    pub message: Message,
    /// Its recipients. Channels of another project are left out.
    pub recipients: Vec<Recipient>,
}

impl NewAlert {
    /// Returns the failed channel that a notice is about.
    fn notice_of(&self) -> Option<Uuid> {
        match &self.message.event {
            Event::ChannelDisabled(disabled) => Some(disabled.channel.id.0),
            _ => None,
        }
    }
}

/// Puts alerts into the outbox, in the caller's transaction. Existing deliveries stay. A channel with a waiting notice
/// about a failed channel gets no second one (index `delivery_notice_once`). Returns the new deliveries.
///
/// A withheld delivery is cancelled from the start. Under the lock of each channel, this function checks again whether
/// its mail address is confirmed: the address may have changed since the caller decided.
///
/// The channels stay locked against deletion until the commit. So a transaction that deletes a channel finds these
/// deliveries, and deletes them as well.
///
/// # Errors
/// If the database is away.
pub async fn enqueue(tx: &mut Tx, alerts: &[NewAlert], now: DateTime<Utc>) -> StoreResult<Vec<DeliveryId>> {
    // Send each message to PostgreSQL once. The deliveries refer to its place, counted from 1 as in arrays.
    let to: Vec<(i32, Recipient)> = (1..)
        .zip(alerts)
        .flat_map(|(place, alert)| alert.recipients.iter().map(move |recipient| (place, *recipient)))
        .collect();
    let ids: Vec<Uuid> = to.iter().map(|_| DeliveryId::generate().0).collect();
    let mut channels: Vec<(ProjectId, ChannelId)> = alerts
        .iter()
        .flat_map(|alert| {
            alert
                .recipients
                .iter()
                .map(|recipient| (alert.project_id, recipient.channel))
        })
        .collect();
    channels.sort_unstable();
    channels.dedup();
    let rows = sqlx::query_scalar!(
        "WITH alert AS (
            SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $10::uuid[])
                WITH ORDINALITY AS alert (project_id, incident_id, alert, payload, notice_of, place)
        ), held AS MATERIALIZED (
            SELECT id, project_id, kind <> 'email' OR confirmed_at IS NOT NULL AS is_confirmed
            FROM channel
            WHERE (project_id, id) IN (SELECT * FROM UNNEST($12::uuid[], $9::uuid[]))
            ORDER BY id
            FOR KEY SHARE
        )
        INSERT INTO delivery (id, project_id, channel_id, incident_id, alert, payload, created_at, notice_of, status, next_attempt_at,
            settled_at, cancel_reason, not_before)
        SELECT new.id, alert.project_id, held.id, alert.incident_id, alert.alert, alert.payload, $5::timestamptz, alert.notice_of,
            CASE WHEN reason IS NULL THEN 'pending' ELSE 'cancelled' END,
            CASE WHEN reason IS NULL THEN greatest($5::timestamptz, new.not_before) END,
            CASE WHEN reason IS NOT NULL THEN $5::timestamptz END,
            reason,
            CASE WHEN reason IS NULL THEN new.not_before END
        FROM UNNEST($6::uuid[], $7::uuid[], $8::int4[], $11::text[], $13::timestamptz[]) AS new (id, channel_id, place, withheld, not_before)
        JOIN alert USING (place)
        JOIN held ON held.id = new.channel_id AND held.project_id = alert.project_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN is_confirmed OR alert.alert = 'confirmation' THEN new.withheld ELSE 'not_confirmed' END AS reason
        ) AS decided
        -- By channel, so that two processes never wait for each other's rows; then as told, which is the order of `sequence`.
        ORDER BY held.id, place
        ON CONFLICT DO NOTHING
        RETURNING id",
        &column(alerts, |alert| alert.project_id.0),
        &column(alerts, |alert| alert.message.incident().map(|incident| incident.id.0)) as &[Option<Uuid>],
        &column(alerts, |alert| alert.message.alert().as_str().to_owned()),
        &column(alerts, |alert| alert.message.to_json()),
        now,
        &ids,
        &column(&to, |(_, recipient)| recipient.channel.0),
        &column(&to, |(place, _)| *place),
        &column(&channels, |(_, channel)| channel.0),
        &column(alerts, NewAlert::notice_of) as &[Option<Uuid>],
        &column(&to, |(_, recipient)| recipient.withheld.map(|reason| reason.as_str().to_owned())) as &[Option<String>],
        &column(&channels, |(project, _)| project.0),
        &column(&to, |(_, recipient)| recipient.not_before) as &[Option<DateTime<Utc>>],
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(DeliveryId).collect())
}

/// Returns which channels got a message about each incident (or would have, if they were confirmed), and for which a message still waits. The answer
/// leaves out incidents without such channels.
///
/// # Errors
/// If the database is away.
pub async fn history(
    tx: &mut Tx,
    incidents: &[(ProjectId, IncidentId)],
    now: DateTime<Utc>,
) -> StoreResult<HashMap<IncidentId, History>> {
    if incidents.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"
        SELECT incident_id AS "incident_id!", channel_id, alert, is_unsent AS "is_unsent!",
            is_unsent AND (next_attempt_at IS NULL OR not_before > $3) AS "is_held!"
        FROM delivery
            CROSS JOIN LATERAL (
                SELECT next_attempt_at IS NOT NULL AND attempt_count = 0 AND not_before IS NOT NULL
                    OR coalesce(cancel_reason = 'muted', false) AS is_unsent
            ) AS state
        WHERE (project_id, incident_id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))
            AND (alert IN ('opened', 'escalated') OR alert = 'reminder' AND is_unsent)
            AND coalesce(cancel_reason NOT IN ('over', 'rules'), true)
        "#,
        &column(incidents, |(project, _)| project.0),
        &column(incidents, |(_, id)| id.0),
        now
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<IncidentId, History> = HashMap::new();
    for row in rows {
        let history = found.entry(IncidentId(row.incident_id)).or_default();
        let channel = ChannelId(row.channel_id);
        if row.is_unsent {
            history.waiting.insert(channel);
        }
        match row.alert.as_str() {
            // A due delivery will be sent, so its channel counts as notified.
            _ if row.is_held => {}
            "opened" => {
                history.opened.insert(channel);
            }
            "escalated" => {
                history.escalated.insert(channel);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The end of a claimed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It was sent.
    Sent,
    /// The retries ended without success.
    Dead,
    /// It is too old to send.
    Cancelled,
    /// It will be retried at this time.
    RetryAt(DateTime<Utc>),
}

/// Settles a claimed delivery. False: this process has lost the lease, and nothing was written.
///
/// # Errors
/// If the database is away.
pub async fn settle(
    tx: &mut Tx,
    project: ProjectId,
    id: DeliveryId,
    lease: Uuid,
    settle: Settle,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    let (status, next, settled) = match settle {
        Settle::Sent => ("sent", None, Some(now)),
        Settle::Dead => ("dead", None, Some(now)),
        Settle::Cancelled => ("cancelled", None, Some(now)),
        Settle::RetryAt(at) => ("pending", Some(at), None),
    };
    let reason = matches!(settle, Settle::Cancelled).then_some("too_old");
    let done = sqlx::query!(
        "UPDATE delivery SET status = $3, next_attempt_at = $4, settled_at = $5, lease = NULL, cancel_reason = coalesce($6, cancel_reason)
        WHERE project_id = $7 AND id = $1 AND lease = $2 AND next_attempt_at IS NOT NULL",
        id.0,
        lease,
        status,
        next,
        settled,
        reason,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns when the next delivery is due.
///
/// # Errors
/// When the database is away.
pub async fn nearest_attempt(reader: &Reader) -> StoreResult<Option<DateTime<Utc>>> {
    Ok(
        sqlx::query_scalar!("SELECT min(next_attempt_at) FROM delivery WHERE status = 'pending'")
            .fetch_one(reader.pool())
            .await?,
    )
}

/// A delivery, as a list shows it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The channel that it goes to.
    pub channel_id: ChannelId,
    /// The incident that it is about.
    pub incident_id: Option<IncidentId>,
    /// Its kind.
    pub alert: String,
    /// pending, sent, dead, cancelled.
    pub status: String,
    /// Number of attempts so far.
    pub attempt_count: i32,
    /// When it was put into the outbox.
    pub created_at: DateTime<Utc>,
    /// When the next attempt is due. None: the delivery is settled.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// The end of its hold: it is not sent before this time.
    pub not_before: Option<DateTime<Utc>>,
    /// When it was settled.
    pub settled_at: Option<DateTime<Utc>>,
    /// Why it was cancelled: `not_confirmed`, `channel_disabled`, `too_old`, `over`, `muted`, `rules`.
    pub cancel_reason: Option<String>,
}

/// The filter of a list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Deliveries to this channel.
    pub channel_id: Option<ChannelId>,
    /// Deliveries about this incident.
    pub incident_id: Option<IncidentId>,
    /// Only this delivery.
    pub id: Option<DeliveryId>,
    /// Deliveries with this status.
    pub status: Option<String>,
}

/// Returns a project's deliveries, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    filter: &Filter,
    page: Page<DeliveryId>,
) -> StoreResult<Vec<Delivery>> {
    let rows = sqlx::query!(
        "SELECT id, channel_id, incident_id, alert, status, attempt_count, created_at, next_attempt_at, not_before, settled_at,
            cancel_reason
        FROM delivery
        WHERE project_id = $1
            AND ($2::uuid IS NULL OR id < $2)
            AND ($3::uuid IS NULL OR channel_id = $3)
            AND ($4::uuid IS NULL OR incident_id = $4)
            AND ($5::uuid IS NULL OR id = $5)
            AND ($6::text IS NULL OR status = $6)
        ORDER BY id DESC
        LIMIT $7",
        project.0,
        page.after.map(|id| id.0),
        filter.channel_id.map(|id| id.0),
        filter.incident_id.map(|id| id.0),
        filter.id.map(|id| id.0),
        filter.status,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Delivery {
            id: DeliveryId(row.id),
            channel_id: ChannelId(row.channel_id),
            incident_id: row.incident_id.map(IncidentId),
            alert: row.alert,
            status: row.status,
            attempt_count: row.attempt_count,
            created_at: row.created_at,
            next_attempt_at: row.next_attempt_at,
            not_before: row.not_before,
            settled_at: row.settled_at,
            cancel_reason: row.cancel_reason,
        })
        .collect())
}

/// Cancels the pending deliveries of a channel whose new address is not confirmed, even those that a sender has
/// claimed. The caller holds the channel's lock.
///
/// # Errors
/// When the database is away.
pub async fn cancel_unconfirmed(
    tx: &mut Tx,
    project: ProjectId,
    channel: ChannelId,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE delivery
        SET status = 'cancelled', cancel_reason = 'not_confirmed', next_attempt_at = NULL, lease = NULL, settled_at = $2
        WHERE project_id = $3 AND channel_id = $1 AND next_attempt_at IS NOT NULL",
        channel.0,
        now,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Makes a dead or cancelled delivery pending again, under the same id. The caller holds its channel's lock. False: the delivery is pending, it was
/// sent, or another notice about a failed channel waits for this channel.
///
/// # Errors
/// When the database is away.
pub async fn resend(
    tx: &mut Tx,
    project: ProjectId,
    id: DeliveryId,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    let done = sqlx::query!(
        "UPDATE delivery
        SET status = 'pending', next_attempt_at = $3, resent_at = $3, lease = NULL, settled_at = NULL, cancel_reason = NULL
        WHERE project_id = $1 AND id = $2 AND status IN ('dead', 'cancelled') AND NOT (notice_of IS NOT NULL AND EXISTS (
            SELECT FROM delivery AS other
            WHERE other.project_id = $1 AND other.channel_id = delivery.channel_id AND other.notice_of IS NOT NULL
                AND other.next_attempt_at IS NOT NULL
        ))",
        project.0,
        id.0,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the channel of a delivery.
///
/// # Errors
/// When the database is away.
pub async fn channel_of(tx: &mut Tx, project: ProjectId, id: DeliveryId) -> StoreResult<Option<ChannelId>> {
    let found = sqlx::query_scalar!(
        "SELECT channel_id FROM delivery WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.map(ChannelId))
}
