//! Table `delivery`: the outbox.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use serde_json::Value;
use uuid::Uuid;

use crate::batch::column;
use crate::page::Page;
use crate::{Reader, StoreResult, Tx};

/// One alert and whom it goes to.
#[derive(Debug, Clone)]
pub struct NewAlert {
    /// Whose it is.
    pub project_id: ProjectId,
    /// The incident that it tells of; none: it belongs to no incident.
    pub incident_id: Option<IncidentId>,
    /// What it tells.
    pub alert: Alert,
    /// The content.
    pub payload: Value,
    /// Where it goes; channels of another project are left out.
    pub channels: Vec<ChannelId>,
}

/// Puts alerts into the outbox, in the caller's transaction. What is there already stays. Answers the deliveries that this made. Those to
/// a mail address that did not confirm are cancelled from the start, so that a reader of deliveries sees why nothing came.
///
/// The channels are held against deletion until the commit: who deletes one finds these deliveries, and takes them along.
///
/// # Errors
/// When the database is away.
pub async fn enqueue(tx: &mut Tx, alerts: &[NewAlert], now: DateTime<Utc>) -> StoreResult<Vec<DeliveryId>> {
    // The content travels once an alert; the deliveries name its place, counted from 1 as arrays are.
    let to: Vec<(i32, ChannelId)> = (1..)
        .zip(alerts)
        .flat_map(|(place, alert)| alert.channels.iter().map(move |channel| (place, *channel)))
        .collect();
    let ids: Vec<Uuid> = to.iter().map(|_| DeliveryId::generate().0).collect();
    let mut channels = column(&to, |(_, channel)| channel.0);
    channels.sort_unstable();
    channels.dedup();
    let rows = sqlx::query_scalar!(
        "WITH alert AS (
            SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[])
                WITH ORDINALITY AS alert (project_id, incident_id, alert, payload, place)
        ), held AS MATERIALIZED (
            SELECT id, project_id, kind <> 'email' OR confirmed_at IS NOT NULL AS is_confirmed
            FROM channel WHERE id = ANY($9) ORDER BY id FOR KEY SHARE
        )
        INSERT INTO delivery (id, project_id, channel_id, incident_id, alert, payload, created_at, status, next_attempt_at, settled_at,
            cancel_reason)
        SELECT new.id, alert.project_id, held.id, alert.incident_id, alert.alert, alert.payload, $5::timestamptz,
            CASE WHEN is_confirmed THEN 'pending' ELSE 'cancelled' END,
            CASE WHEN is_confirmed THEN $5::timestamptz END,
            CASE WHEN NOT is_confirmed THEN $5::timestamptz END,
            CASE WHEN NOT is_confirmed THEN 'not_confirmed' END
        FROM UNNEST($6::uuid[], $7::uuid[], $8::int4[]) AS new (id, channel_id, place)
        JOIN alert USING (place)
        JOIN held ON held.id = new.channel_id AND held.project_id = alert.project_id
        -- By channel, so that two processes never wait for each other's rows; then as told, which is the order of `sequence`.
        ORDER BY held.id, place
        ON CONFLICT DO NOTHING
        RETURNING id",
        &column(alerts, |alert| alert.project_id.0),
        &column(alerts, |alert| alert.incident_id.map(|id| id.0)) as &[Option<Uuid>],
        &column(alerts, |alert| alert.alert.as_str().to_owned()),
        &column(alerts, |alert| alert.payload.clone()),
        now,
        &ids,
        &column(&to, |(_, channel)| channel.0),
        &column(&to, |(place, _)| *place),
        &channels,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(DeliveryId).collect())
}

/// Puts the mail that asks for a confirmation into the outbox: the only mail that goes to an address that did not confirm.
///
/// # Errors
/// When the database is away.
pub async fn enqueue_confirmation(
    tx: &mut Tx,
    project: ProjectId,
    channel: ChannelId,
    payload: &Value,
    now: DateTime<Utc>,
) -> StoreResult<DeliveryId> {
    let id = DeliveryId::generate();
    sqlx::query!(
        "INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at)
        VALUES ($1, $2, $3, 'test', $4, 'pending', $5, $5)",
        id.0,
        project.0,
        channel.0,
        payload,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(id)
}

/// Puts a notice that the channel `about` failed into the outbox of a project's other channels. A channel to which such a notice is
/// still to be sent gets no second one: the index `delivery_notice_once` sees to that. Answers how many deliveries that makes.
///
/// The caller holds the project ([`crate::channel::lock_to_disable`]), so that no two notices of a project are written at once.
///
/// # Errors
/// When the database is away.
pub async fn enqueue_notice(
    tx: &mut Tx,
    project: ProjectId,
    about: ChannelId,
    payload: &Value,
    channels: &[ChannelId],
    now: DateTime<Utc>,
) -> StoreResult<usize> {
    let ids: Vec<Uuid> = channels.iter().map(|_| DeliveryId::generate().0).collect();
    let made = sqlx::query!(
        "WITH held AS MATERIALIZED (
            SELECT id FROM channel WHERE project_id = $1 AND id = ANY($4) ORDER BY id FOR KEY SHARE
        )
        INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at, notice_of)
        SELECT new.id, $1, held.id, 'test', $3, 'pending', $6, $6, $2
        FROM UNNEST($5::uuid[], $4::uuid[]) AS new (id, channel_id) JOIN held ON held.id = new.channel_id
        ORDER BY held.id
        ON CONFLICT DO NOTHING",
        project.0,
        about.0,
        payload,
        &column(channels, |channel| channel.0),
        &ids,
        now,
    )
    .execute(tx.conn())
    .await?;
    Ok(usize::try_from(made.rows_affected()).unwrap_or(usize::MAX))
}

/// The channels that were told that incidents had opened: those are told that they are over.
///
/// # Errors
/// When the database is away.
pub async fn channels_told(
    tx: &mut Tx,
    incidents: &[IncidentId],
) -> StoreResult<Vec<(IncidentId, ChannelId)>> {
    let rows = sqlx::query!(
        r#"
        SELECT incident_id AS "incident_id!", delivery.channel_id
        FROM delivery JOIN channel ON channel.id = delivery.channel_id
        WHERE incident_id = ANY($1) AND alert = 'opened' AND channel.disabled_at IS NULL
        ORDER BY delivery.channel_id
        "#,
        &column(incidents, |id| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (IncidentId(row.incident_id), ChannelId(row.channel_id)))
        .collect())
}

/// What becomes of a claimed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It arrived.
    Sent,
    /// It is given up.
    Dead,
    /// It is too old to be of use.
    Cancelled,
    /// It is tried again then.
    RetryAt(DateTime<Utc>),
}

/// Settles a claimed delivery. False: the lease was lost, and nothing was written.
///
/// # Errors
/// When the database is away.
pub async fn settle(
    tx: &mut Tx,
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
        WHERE id = $1 AND lease = $2 AND next_attempt_at IS NOT NULL",
        id.0,
        lease,
        status,
        next,
        settled,
        reason
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// When the next delivery is due.
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

/// A delivery as listed.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Where it goes.
    pub channel_id: ChannelId,
    /// What it tells of.
    pub incident_id: Option<IncidentId>,
    /// What it tells.
    pub alert: String,
    /// pending, sent, dead, cancelled.
    pub status: String,
    /// Tries so far.
    pub attempt_count: i32,
    /// When it was put into the outbox.
    pub created_at: DateTime<Utc>,
    /// When it is tried next.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it was settled.
    pub settled_at: Option<DateTime<Utc>>,
    /// Why it was cancelled: `not_confirmed`, `channel_disabled`, `too_old`.
    pub cancel_reason: Option<String>,
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// To this channel.
    pub channel_id: Option<ChannelId>,
    /// Of this incident.
    pub incident_id: Option<IncidentId>,
    /// Only this one.
    pub id: Option<DeliveryId>,
    /// In this status.
    pub status: Option<String>,
}

/// A project's deliveries, newest first.
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
        "SELECT id, channel_id, incident_id, alert, status, attempt_count, created_at, next_attempt_at, settled_at,
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
            settled_at: row.settled_at,
            cancel_reason: row.cancel_reason,
        })
        .collect())
}

/// Cancels what waits for a channel whose new address nobody has confirmed, also what is being sent. The caller holds the channel.
///
/// # Errors
/// When the database is away.
pub async fn cancel_unconfirmed(tx: &mut Tx, channel: ChannelId, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE delivery
        SET status = 'cancelled', cancel_reason = 'not_confirmed', next_attempt_at = NULL, lease = NULL, settled_at = $2
        WHERE channel_id = $1 AND next_attempt_at IS NOT NULL",
        channel.0,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
