//! The columns of table `monitor` that a person or a Beat sets, and the monitor's channels.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ChannelId, MonitorId, MonitorKey, ProjectId};
use deadbeat_domain::incident::severity::Severity;
use serde_json::Value;
use uuid::Uuid;

use super::{Monitor, alarm};
use crate::monitor::batch::column;
use crate::{Reader, StoreResult, Tx};

/// Writes a person's settings. The state goes through [`crate::monitor::batch::write`].
///
/// # Errors
/// `monitor_slug_unique` if another monitor of the project has that slug.
pub async fn update_settings(tx: &mut Tx, monitor: &Monitor) -> StoreResult<()> {
    let expectation = &monitor.state.expectation;
    sqlx::query!(
        "UPDATE monitor
        SET slug = $3, name = $4, tags = $5, schedule = $6, grace_seconds = $7, longest_run_seconds = $8, all_channels = $9,
            retired_at = $10, updated_at = $11, registered = $12, severity = $13, failure_threshold = $14, recovery_threshold = $15
        WHERE project_id = $1 AND id = $2",
        monitor.project_id.0,
        monitor.id.0,
        monitor.slug,
        monitor.name,
        &monitor.tags,
        expectation.schedule.to_json(),
        expectation.grace_seconds,
        expectation.longest_run_seconds,
        monitor.all_channels,
        monitor.retired_at,
        monitor.updated_at,
        monitor.registered,
        monitor.severity.map(Severity::as_str),
        alarm::small(monitor.state.thresholds.failures),
        alarm::small(monitor.state.thresholds.recoveries),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes the settings that a Beat reported of its monitors. The state goes through [`crate::monitor::batch::write`].
///
/// # Errors
/// If the database is away.
pub async fn update_registered(tx: &mut Tx, monitors: &[&Monitor]) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE monitor
        SET schedule = new.schedule, grace_seconds = new.grace_seconds, longest_run_seconds = new.longest_run_seconds,
            retired_at = new.retired_at, updated_at = new.updated_at, registered = new.registered, delay_seconds = new.delay_seconds
        FROM UNNEST($1::uuid[], $2::jsonb[], $3::float8[], $4::float8[], $5::timestamptz[], $6::timestamptz[], $7::jsonb[], $8::float8[],
            $9::uuid[])
            AS new (id, schedule, grace_seconds, longest_run_seconds, retired_at, updated_at, registered, delay_seconds, project_id)
        WHERE monitor.id = new.id AND monitor.project_id = new.project_id",
        &column(monitors, |monitor| monitor.id.0),
        &column(monitors, |monitor| monitor.state.expectation.schedule.to_json()),
        &column(monitors, |monitor| monitor.state.expectation.grace_seconds),
        &column(monitors, |monitor| monitor.state.expectation.longest_run_seconds) as &[Option<f64>],
        &column(monitors, |monitor| monitor.retired_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |monitor| monitor.updated_at),
        &column(monitors, |monitor| monitor.registered.clone()) as &[Option<Value>],
        &column(monitors, |monitor| monitor.state.expectation.delay_seconds),
        &column(monitors, |monitor| monitor.project_id.0),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Sets which channels get the monitor's alerts, if not all do. Skips ids of another project.
///
/// # Errors
/// If the database is away.
pub async fn set_channels(
    tx: &mut Tx,
    project: ProjectId,
    monitor: MonitorId,
    channels: &[ChannelId],
) -> StoreResult<u64> {
    let ids: Vec<Uuid> = channels.iter().map(|id| id.0).collect();
    sqlx::query!(
        "DELETE FROM monitor_channel WHERE project_id = $1 AND monitor_id = $2",
        project.0,
        monitor.0
    )
    .execute(tx.conn())
    .await?;
    let written = sqlx::query!(
        "INSERT INTO monitor_channel (project_id, monitor_id, channel_id)
        SELECT monitor.project_id, monitor.id, channel.id
        FROM monitor JOIN channel ON channel.project_id = monitor.project_id
        WHERE monitor.project_id = $1 AND monitor.id = $2 AND channel.id = ANY($3)",
        project.0,
        monitor.0,
        &ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(written.rows_affected())
}

/// Returns the tags of monitors. The answer leaves out deleted monitors.
///
/// # Errors
/// If the database is away.
pub async fn tags(tx: &mut Tx, monitors: &[MonitorKey]) -> StoreResult<HashMap<MonitorId, Vec<String>>> {
    let rows = sqlx::query!(
        "SELECT id, tags FROM monitor WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $2::uuid[]))",
        &column(monitors, |(project, _)| project.0),
        &column(monitors, |(_, id)| id.0)
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.id), row.tags))
        .collect())
}

/// Returns the channels of those monitors that do not alert every channel, as pairs of monitor and channel.
///
/// # Errors
/// If the database is away.
pub async fn channels(
    reader: &Reader,
    project: ProjectId,
    monitors: &[MonitorId],
) -> StoreResult<Vec<(MonitorId, ChannelId)>> {
    let ids: Vec<Uuid> = monitors.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT monitor_id, channel_id
        FROM monitor_channel
        WHERE project_id = $1 AND monitor_id = ANY($2)
        ORDER BY monitor_id, channel_id",
        project.0,
        &ids
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MonitorId(row.monitor_id), ChannelId(row.channel_id)))
        .collect())
}

/// Returns the slugs of a project that begin with a text. The caller chooses a free slug beside them.
///
/// # Errors
/// If the database is away.
pub async fn slugs_like(tx: &mut Tx, project: ProjectId, beginning: &str) -> StoreResult<Vec<String>> {
    // To number a slug, the caller may have cut the end of a long beginning (the length limit). So compare without the
    // last ten characters.
    let beginning: String = beginning.chars().take(90).collect();
    Ok(sqlx::query_scalar!(
        "SELECT slug FROM monitor WHERE project_id = $1 AND starts_with(slug, $2)",
        project.0,
        beginning
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Returns which of these slugs a project has already.
///
/// # Errors
/// When the database is away.
pub async fn slugs_taken(tx: &mut Tx, project: ProjectId, slugs: &[String]) -> StoreResult<Vec<String>> {
    Ok(sqlx::query_scalar!(
        "SELECT slug FROM monitor WHERE project_id = $1 AND slug = ANY($2)",
        project.0,
        slugs
    )
    .fetch_all(tx.conn())
    .await?)
}
