//! Tables `ping` and `ping_body`. [`crate::monitor::batch::write`] writes them.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::monitor::ping::{PingKind, Source};
use uuid::Uuid;

use crate::page::Page;
use crate::{Reader, StoreError, StoreResult};

/// A ping to append.
#[derive(Debug, Clone)]
pub struct NewPing<'a> {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its monitor.
    pub monitor_id: MonitorId,
    /// Its number, assigned under the monitor's lock.
    pub n: i64,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// Its kind.
    pub kind: PingKind,
    /// The client's run id.
    pub run_id: Option<Uuid>,
    /// The exit code of the client's command, 0 to 255.
    pub exit_code: Option<u8>,
    /// The interface through which it came.
    pub source: Source,
    /// HTTP method.
    pub method: Option<Cow<'a, str>>,
    /// The client's address, as the socket or the proxy in front reports it.
    pub remote_addr: Option<Cow<'a, str>>,
    /// The client's user agent.
    pub user_agent: Option<Cow<'a, str>>,
    /// The body, cut to the limit. Empty: the ping has none.
    pub body: &'a [u8],
}

/// A ping, as a list shows it.
#[derive(Debug, Clone)]
pub struct Ping {
    /// Its number.
    pub n: i64,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// Its kind.
    pub kind: PingKind,
    /// The client's run id.
    pub run_id: Option<Uuid>,
    /// The exit code of the client's command, 0 to 255.
    pub exit_code: Option<i16>,
    /// `http` or `event`.
    pub source: String,
    /// HTTP method.
    pub method: Option<String>,
    /// The client's address.
    pub remote_addr: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// How many bytes of its body are kept.
    pub body_bytes: i32,
}

/// Returns a monitor's pings, newest first. The caller has checked that the monitor belongs to the project.
///
/// # Errors
/// When the database is away.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    monitor: MonitorId,
    page: Page<i64>,
) -> StoreResult<Vec<Ping>> {
    let rows = sqlx::query!(
        "SELECT n, received_at, kind, run_id, exit_code, source, method, remote_addr, user_agent, body_bytes
        FROM ping
        WHERE project_id = $1 AND monitor_id = (SELECT id FROM monitor WHERE project_id = $1 AND id = $2)
            AND ($3::int8 IS NULL OR n < $3)
        ORDER BY n DESC
        LIMIT $4",
        project.0,
        monitor.0,
        page.after,
        page.limit
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Ping {
                n: row.n,
                received_at: row.received_at,
                kind: PingKind::parse(&row.kind)
                    .ok_or_else(|| StoreError::Corrupt(format!("ping kind {}", row.kind)))?,
                run_id: row.run_id,
                exit_code: row.exit_code,
                source: row.source,
                method: row.method,
                remote_addr: row.remote_addr,
                user_agent: row.user_agent,
                body_bytes: row.body_bytes,
            })
        })
        .collect()
}

/// Returns a ping's body, byte for byte as received.
///
/// # Errors
/// When the database is away.
pub async fn body(
    reader: &Reader,
    project: ProjectId,
    monitor: MonitorId,
    n: i64,
) -> StoreResult<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "SELECT body
        FROM ping_body
        WHERE project_id = $1 AND monitor_id = (SELECT id FROM monitor WHERE project_id = $1 AND id = $2) AND n = $3",
        project.0,
        monitor.0,
        n
    )
    .fetch_optional(reader.pool())
    .await?)
}
