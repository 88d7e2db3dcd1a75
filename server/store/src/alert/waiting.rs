//! Table `delivery`: the held deliveries, and those that a mute or a channel's rules withhold.
//!
//! Nothing was sent for such a delivery, so its decision can be revised. A delivery with an attempt stays as it is, because its message may have
//! arrived.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::severity::Severity;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// A delivery whose decision can be revised, with the values that decide.
#[derive(Debug, Clone)]
pub struct WaitingDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The channel that it goes to.
    pub channel_id: ChannelId,
    /// The kind of alert.
    pub alert: Alert,
    /// The kind of the incident's subject.
    pub subject_kind: SubjectKind,
    /// The subject's id.
    pub subject_id: Uuid,
    /// The incident's cause. None: a newer version wrote it.
    pub cause: Option<Cause>,
    /// How urgent the incident is.
    pub severity: Severity,
    /// When the incident opened.
    pub opened_at: DateTime<Utc>,
    /// The tags that the incident's monitor has now.
    pub tags: Vec<String>,
}

/// The deliveries whose decisions are revised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// All deliveries of the project.
    All,
    /// The deliveries to this channel.
    Channel(ChannelId),
    /// The deliveries about this subject.
    Subject(Uuid),
}

/// A revised decision about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is sent at this time, or as soon as possible after it.
    At(DateTime<Utc>),
    /// It is withheld, with this `cancel_reason`.
    Withheld(&'static str),
}

/// Locks the next deliveries of a project that are held or withheld, in id order, at most `limit`. Leaves out withheld ones about incidents that are
/// resolved or acknowledged. The caller holds the project's lock ([`crate::people::project::lock_rules`]).
///
/// # Errors
/// When the database is away.
pub async fn lock(
    tx: &mut Tx,
    project: ProjectId,
    only: Only,
    after: Option<DeliveryId>,
    limit: i64,
) -> StoreResult<Vec<WaitingDelivery>> {
    let (channel, subject) = match only {
        Only::All => (None, None),
        Only::Channel(id) => (Some(id.0), None),
        Only::Subject(id) => (None, Some(id)),
    };
    let rows = sqlx::query!(
        r#"
        SELECT delivery.id, delivery.channel_id, delivery.alert, subject_kind, subject_id, cause, incident.severity, opened_at,
            coalesce(monitor.tags, '{}') AS "tags!"
        FROM delivery
            JOIN incident ON incident.project_id = delivery.project_id AND incident.id = delivery.incident_id
            LEFT JOIN monitor ON subject_kind = 'monitor' AND monitor.project_id = incident.project_id AND monitor.id = subject_id
        WHERE delivery.project_id = $1 AND delivery.id IN (
                SELECT id FROM delivery
                WHERE project_id = $1 AND next_attempt_at IS NOT NULL AND attempt_count = 0 AND not_before IS NOT NULL
                    AND ($2::uuid IS NULL OR channel_id = $2) AND ($3::uuid IS NULL OR id > $3)
                UNION ALL
                SELECT id FROM delivery
                WHERE project_id = $1 AND cancel_reason IN ('muted', 'rules') AND ($2::uuid IS NULL OR channel_id = $2)
                    AND ($3::uuid IS NULL OR id > $3)
            )
            AND ($5::uuid IS NULL OR subject_id = $5)
            AND (next_attempt_at IS NOT NULL OR (resolved_at IS NULL AND acknowledged_at IS NULL))
        ORDER BY delivery.id
        LIMIT $4
        FOR UPDATE OF delivery
        "#,
        project.0,
        channel,
        after.map(|id| id.0),
        limit,
        subject
    )
    .fetch_all(tx.conn())
    .await?;
    let waiting = rows.into_iter().filter_map(|row| {
        let cause = Cause::parse(&row.cause);
        let severity = row.severity.as_deref().and_then(Severity::parse);
        Some(WaitingDelivery {
            id: DeliveryId(row.id),
            channel_id: ChannelId(row.channel_id),
            // Leave out a delivery that a newer version wrote: that version revises it.
            alert: Alert::parse(&row.alert)?,
            subject_kind: SubjectKind::parse(&row.subject_kind)?,
            subject_id: row.subject_id,
            cause,
            severity: severity
                .or(cause.map(Cause::severity))
                .unwrap_or(Severity::Warning),
            opened_at: row.opened_at,
            tags: row.tags,
        })
    });
    Ok(waiting.collect())
}

/// Writes revised decisions. A delivery with an attempt since then stays as it is.
///
/// # Errors
/// When the database is away.
pub async fn decide(
    tx: &mut Tx,
    project: ProjectId,
    decided: &[(DeliveryId, Decided)],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE delivery
        SET status = CASE WHEN new.at IS NULL THEN 'cancelled' ELSE 'pending' END, next_attempt_at = new.at, not_before = new.at,
            settled_at = CASE WHEN new.at IS NULL THEN $4::timestamptz END, cancel_reason = new.reason
        FROM UNNEST($2::uuid[], $3::timestamptz[], $5::text[]) AS new (id, at, reason)
        WHERE delivery.project_id = $1 AND delivery.id = new.id AND attempt_count = 0
            AND (delivery.next_attempt_at, delivery.cancel_reason) IS DISTINCT FROM (new.at, new.reason)",
        project.0,
        &column(decided, |(id, _)| id.0),
        &column(decided, |(_, decided)| match decided {
            Decided::At(at) => Some(*at),
            Decided::Withheld(_) => None,
        }) as &[Option<DateTime<Utc>>],
        now,
        &column(decided, |(_, decided)| match decided {
            Decided::At(_) => None,
            Decided::Withheld(reason) => Some((*reason).to_owned()),
        }) as &[Option<String>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Cancels the held deliveries that would report that these incidents opened or continue: the incidents are resolved, or a person acknowledged them.
/// Due deliveries stay.
///
/// Every caller locks in this order: project, channels, deliveries.
///
/// # Errors
/// When the database is away.
pub async fn cancel_over(
    tx: &mut Tx,
    incidents: &[(ProjectId, IncidentId)],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let found = sqlx::query!(
        "SELECT project_id, id, channel_id
        FROM delivery
        WHERE (project_id, incident_id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))
            AND next_attempt_at > $3 AND attempt_count = 0 AND not_before > $3 AND alert IN ('opened', 'reminder', 'escalated')
        ORDER BY id",
        &column(incidents, |(project, _)| project.0),
        &column(incidents, |(_, id)| id.0),
        now
    )
    .fetch_all(tx.conn())
    .await?;
    if found.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "SELECT id FROM channel
        WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))
        ORDER BY id
        FOR KEY SHARE",
        &column(&found, |row| row.project_id),
        &column(&found, |row| row.channel_id)
    )
    .fetch_all(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE delivery
        SET status = 'cancelled', cancel_reason = 'over', next_attempt_at = NULL, settled_at = $3
        WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))
            AND next_attempt_at IS NOT NULL AND attempt_count = 0",
        &column(&found, |row| row.project_id),
        &column(&found, |row| row.id),
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
