//! Column `session.project_id`: the project that the pages of a session showed last.

use deadbeat_domain::ids::ProjectId;

use crate::{Reader, StoreResult, Tx};

/// Returns the project that a session remembers.
///
/// # Errors
/// When the database is away.
pub async fn of_session(reader: &Reader, digest: &[u8]) -> StoreResult<Option<ProjectId>> {
    let found = sqlx::query_scalar!("SELECT project_id FROM session WHERE digest = $1", digest)
        .fetch_optional(reader.pool())
        .await?;
    Ok(found.flatten().map(ProjectId))
}

/// Lets a session remember a project, if its account is a member there.
///
/// # Errors
/// When the database is away.
pub async fn remember(tx: &mut Tx, digest: &[u8], project: ProjectId) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE session SET project_id = $2
        WHERE digest = $1
            AND EXISTS (SELECT FROM member WHERE member.project_id = $2 AND member.account_id = session.account_id)",
        digest,
        project.0
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
