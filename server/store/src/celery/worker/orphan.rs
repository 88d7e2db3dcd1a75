//! Open runs whose incarnation has ended, or no longer executes them.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{MonitorKey, ProjectId};
use deadbeat_domain::monitor::run::orphan::Orphaned;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// True if an incarnation owns an open run that began before an instant, and that is missing in the incarnation's list
/// of executed runs.
///
/// # Errors
/// If the database is away.
pub async fn has_unlisted(
    tx: &mut Tx,
    project: ProjectId,
    incarnation: Uuid,
    listed: &[Uuid],
    began_before: DateTime<Utc>,
) -> StoreResult<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM run JOIN monitor ON monitor.project_id = run.project_id AND monitor.id = monitor_id
            WHERE run.project_id = $4 AND incarnation = $1 AND run.status = 'open' AND orphaned IS NULL AND attempts > 0
                AND started_at < $3 AND run_id <> ALL($2)
        ) AS "has_unlisted!""#,
        incarnation,
        listed,
        began_before,
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Marks the open runs of ended incarnations as orphans, with the reason. The evaluator judges these runs and their
/// monitors at once. Changes only runs of `held` monitors, which the caller has locked
/// ([`crate::monitor::lock_of_workers`]).
///
/// # Errors
/// If the database is away.
pub async fn mark_ended(
    tx: &mut Tx,
    ended: &[(ProjectId, Uuid, Orphaned)],
    held: &[MonitorKey],
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "WITH marked AS (
            UPDATE run SET orphaned = how, orphaned_at = $3, deadline_at = least(run.deadline_at, $3)
            FROM UNNEST($1::uuid[], $2::text[], $5::uuid[]) AS ended (id, how, project_id)
                JOIN monitor ON monitor.project_id = ended.project_id AND monitor.id = ANY($4)
            WHERE run.project_id = ended.project_id AND incarnation = ended.id AND monitor_id = monitor.id AND run.status = 'open' AND attempts > 0
                AND (orphaned IS NULL OR orphaned = 'unlisted')
            RETURNING run.project_id, monitor_id
        )
        UPDATE monitor SET deadline_at = least(deadline_at, $3),
            hold_until = CASE WHEN hold_until IS NOT NULL THEN least(hold_until, $3) END, check_after = least(check_after, $3)
        WHERE (project_id, id) IN (SELECT * FROM marked) AND (status IN ('new', 'up') OR alarm = 'bad')",
        &column(ended, |(_, id, _)| *id),
        &column(ended, |(.., how)| how.as_str().to_owned()),
        now,
        &column(held, |(_, id)| id.0),
        &column(ended, |(project, ..)| project.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Marks open runs as orphans that began before an instant, and that their incarnations no longer list (`listed`: all
/// runs that these list). The evaluator judges these runs and their monitors at `judged_at`. Changes only runs of
/// `held` monitors.
///
/// # Errors
/// If the database is away.
pub async fn mark_unlisted(
    tx: &mut Tx,
    incarnations: &[(ProjectId, Uuid)],
    listed: &[Uuid],
    held: &[MonitorKey],
    began_before: DateTime<Utc>,
    now: DateTime<Utc>,
    judged_at: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "WITH marked AS (
            UPDATE run SET orphaned = 'unlisted', orphaned_at = $5, deadline_at = least(run.deadline_at, $6)
            FROM UNNEST($1::uuid[], $7::uuid[]) AS owner (id, project_id)
                JOIN monitor ON monitor.project_id = owner.project_id AND monitor.id = ANY($3)
            WHERE run.project_id = owner.project_id AND incarnation = owner.id AND monitor_id = monitor.id AND run.status = 'open' AND orphaned IS NULL AND attempts > 0
                AND started_at < $4 AND run_id <> ALL($2)
            RETURNING run.project_id, monitor_id
        )
        UPDATE monitor SET deadline_at = least(deadline_at, $6),
            hold_until = CASE WHEN hold_until IS NOT NULL THEN least(hold_until, $6) END, check_after = least(check_after, $6)
        WHERE (project_id, id) IN (SELECT * FROM marked) AND (status IN ('new', 'up') OR alarm = 'bad')",
        &column(incarnations, |(_, id)| *id),
        listed,
        &column(held, |(_, id)| id.0),
        began_before,
        now,
        judged_at,
        &column(incarnations, |(project, _)| project.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
