//! Deletes monitors.

use deadbeat_domain::ids::{MonitorId, ProjectId};

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// Deletes a monitor. From then on nobody sees its pings and its runs; the retention deletes those later
/// ([`crate::operation::retention::purge_one`]). False: there was none.
///
/// # Errors
/// If the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: MonitorId) -> StoreResult<bool> {
    let done = sqlx::query!(
        "DELETE FROM monitor WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes monitors of a project, as [`delete`] does with one. The caller holds their locks.
///
/// # Errors
/// When the database is away.
pub async fn delete_all(tx: &mut Tx, project: ProjectId, ids: &[MonitorId]) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM monitor WHERE project_id = $1 AND id = ANY($2)",
        project.0,
        &column(ids, |id| id.0)
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
