//! Table `transition`: the history of a subject.

use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::transition::Transition;
use uuid::Uuid;

use crate::{StoreResult, Tx};

/// Appends a change of status.
///
/// # Errors
/// When the database is away.
pub async fn insert(
    tx: &mut Tx,
    project: ProjectId,
    subject_kind: SubjectKind,
    subject: Uuid,
    transition: &Transition,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO transition (id, project_id, subject_kind, subject_id, from_status, to_status, cause, at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        Uuid::now_v7(),
        project.0,
        subject_kind.as_str(),
        subject,
        transition.from.as_str(),
        transition.to.as_str(),
        transition.trigger.as_str(),
        transition.at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
