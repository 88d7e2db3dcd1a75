//! Finds the queues that workers consume.

use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;

use super::status;
use crate::celery::queue::trouble;
use crate::{Reader, StoreResult, Tx};

/// Returns the queues that workers of an application consume, or consumed before they stopped, and those with waiting messages. Queues with a fault
/// come first, then those with messages. `key` may not read. So the answer leaves out queues that only another key has named, until that key is
/// revoked.
///
/// # Errors
/// If the database is away.
pub async fn consumed_queues(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    key: Option<ApiKeyId>,
) -> StoreResult<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        WITH other_key AS (
            SELECT id FROM api_key WHERE project_id = $1 AND id IS DISTINCT FROM $3 AND revoked_at IS NULL
        )
        SELECT named.name AS "queue!"
        FROM (
            SELECT consumed.name
            FROM worker, UNNEST(queues) AS consumed (name)
            WHERE project_id = $1 AND app = $2 AND (told_with IS NULL OR told_with NOT IN (SELECT id FROM other_key))
            UNION
            SELECT name
            FROM queue
            WHERE project_id = $1 AND app = $2 AND (depth > 0 OR trouble IS NOT NULL)
                AND (told_with IS NULL OR told_with NOT IN (SELECT id FROM other_key))
        ) AS named LEFT JOIN queue ON queue.name = named.name AND project_id = $1 AND app = $2
        ORDER BY trouble IS NULL, coalesce(depth, 0) = 0, named.name
        "#,
        project.0,
        app,
        key.map(|key| key.0)
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Returns the queues that an application's workers consume. Paused workers count only if all are paused. Then the answer has the queues of the
/// workers that stopped last (within ten minutes), because a returning worker consumes these. Leaves out queues that only another key has named, as
/// [`consumed_queues`] does.
///
/// # Errors
/// If the database is away.
pub async fn attended_queues(
    tx: &mut Tx,
    project: ProjectId,
    app: &str,
    key: Option<ApiKeyId>,
    limit: i64,
) -> StoreResult<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        WITH other_key AS (
            SELECT id FROM api_key WHERE project_id = $1 AND id IS DISTINCT FROM $4 AND revoked_at IS NULL
        ), known AS (
            SELECT queues, status <> 'paused' AS is_waited_for, last_seen_at,
                bool_or(status <> 'paused') OVER () AS is_any, max(last_seen_at) OVER () AS newest
            FROM worker
            WHERE project_id = $1 AND app = $2 AND (told_with IS NULL OR told_with NOT IN (SELECT id FROM other_key))
        )
        SELECT DISTINCT consumed.name AS "queue!"
        FROM known, UNNEST(queues) AS consumed (name)
        WHERE is_waited_for OR (NOT is_any AND last_seen_at > newest - interval '10 minutes')
        ORDER BY consumed.name
        LIMIT $3
        "#,
        project.0,
        app,
        limit,
        key.map(|key| key.0)
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The workers of one status and fault that consume a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumers {
    /// The Celery application's name.
    pub app: String,
    /// The queue.
    pub queue: String,
    /// The workers' status.
    pub status: Status,
    /// The fault that the workers have although they report.
    pub trouble: Option<Cause>,
    /// The number of these workers.
    pub workers: i64,
    /// The names of the first three workers.
    pub names: Vec<String>,
}

/// Returns the consumers of some applications' queues, by the workers' own last reports. Paused workers do not count.
///
/// # Errors
/// If the database is away, or a row cannot be read.
pub async fn consumers(
    reader: &Reader,
    project: ProjectId,
    apps: &[String],
    queues: &[String],
) -> StoreResult<Vec<Consumers>> {
    let rows = sqlx::query!(
        r#"
        SELECT app, queue AS "queue!", status, trouble, count(DISTINCT name) AS "workers!",
            (array_agg(DISTINCT name ORDER BY name))[1:3] AS "names!"
        FROM worker, UNNEST(queues) AS queue
        WHERE project_id = $1 AND app = ANY($2) AND queue = ANY($3) AND status <> 'paused'
        GROUP BY app, queue, status, trouble
        ORDER BY app, queue, status, trouble
        "#,
        project.0,
        apps,
        queues
    )
    .fetch_all(reader.pool())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Consumers {
                app: row.app,
                queue: row.queue,
                status: status(&row.status)?,
                trouble: trouble("worker", row.trouble.as_deref())?,
                workers: row.workers,
                names: row.names,
            })
        })
        .collect()
}
