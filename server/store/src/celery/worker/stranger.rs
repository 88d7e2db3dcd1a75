//! Strangers, which are workers that consume messages and do not report (`broker.strangers`), and runs that vanish from
//! queues (`queue.vanished_at`).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::worker::stranger::Stranger;
use deadbeat_domain::ids::{BrokerId, ProjectId, QueueId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// Returns the strangers of a broker. If the stored list cannot be read, returns an empty one: the next sample fills it
/// again.
///
/// # Errors
/// If the database is away.
pub async fn of_broker(tx: &mut Tx, project: ProjectId, id: BrokerId) -> StoreResult<Vec<Stranger>> {
    let stored = sqlx::query_scalar!(
        "SELECT strangers FROM broker WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(stored
        .and_then(|stored| serde_json::from_value(stored).ok())
        .unwrap_or_default())
}

/// Notes the strangers of a broker. The caller holds the broker's lock.
///
/// # Errors
/// When the database is away.
pub async fn note(tx: &mut Tx, project: ProjectId, id: BrokerId, strangers: &[Stranger]) -> StoreResult<()> {
    let strangers = serde_json::to_value(strangers).unwrap_or_default();
    sqlx::query!(
        "UPDATE broker SET strangers = $3 WHERE project_id = $1 AND id = $2",
        project.0,
        id.0,
        strangers
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns those of these names under which a worker reports, in any application of the project: their brokers may be
/// the same one.
///
/// # Errors
/// If the database is away.
pub async fn reporting(tx: &mut Tx, project: ProjectId, names: &[String]) -> StoreResult<HashSet<String>> {
    let names = sqlx::query_scalar!(
        "SELECT name FROM worker
        WHERE project_id = $1 AND name = ANY($2) AND (status IN ('new', 'up') OR (status = 'down' AND trouble IS NOT NULL))",
        project.0,
        names
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(names.into_iter().collect())
}

/// Returns the time since which runs have been missing that vanished from queues of an application.
///
/// # Errors
/// If the database is away.
pub async fn vanished(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
) -> StoreResult<HashMap<QueueId, DateTime<Utc>>> {
    let rows = sqlx::query!(
        r#"SELECT id, vanished_at AS "vanished_at!" FROM queue WHERE project_id = $1 AND app = $2 AND vanished_at IS NOT NULL"#,
        project.0,
        app
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (QueueId(row.id), row.vanished_at))
        .collect())
}

/// Notes that runs have vanished from these queues. The first time stays for `kept`.
///
/// # Errors
/// If the database is away.
pub async fn note_vanished(
    tx: &mut Tx,
    queues: &[(ProjectId, QueueId)],
    now: DateTime<Utc>,
    kept: TimeDelta,
) -> StoreResult<()> {
    sqlx::query!(
        "WITH held AS MATERIALIZED (
            SELECT project_id, id
            FROM queue
            WHERE (project_id, id) IN (SELECT * FROM UNNEST($1::uuid[], $4::uuid[]))
            ORDER BY id
            FOR UPDATE
        )
        UPDATE queue SET vanished_at = $2
        FROM held
        WHERE queue.project_id = held.project_id AND queue.id = held.id
            AND (vanished_at IS NULL OR vanished_at < $3 OR vanished_at > $2)",
        &column(queues, |(project, _)| project.0),
        now,
        now - kept,
        &column(queues, |(_, id)| id.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
