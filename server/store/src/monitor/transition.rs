//! Table `transition`: the history of a subject.

use deadbeat_domain::change::Transition;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::SubjectKind;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::{StoreResult, Tx};

/// A change of status to be written, with its subject.
#[derive(Debug, Clone)]
pub struct NewTransition {
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The kind of subject.
    pub subject_kind: SubjectKind,
    /// The subject's id.
    pub subject_id: Uuid,
    /// The change.
    pub transition: Transition,
}

/// Appends changes of status to the subjects' histories, in this order.
///
/// # Errors
/// When the database is away.
pub async fn insert(tx: &mut Tx, new: &[NewTransition]) -> StoreResult<()> {
    let ids: Vec<Uuid> = new.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query!(
        "INSERT INTO transition (id, project_id, subject_kind, subject_id, from_status, to_status, cause, at)
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])",
        &ids,
        &column(new, |one| one.project_id.0),
        &column(new, |one| one.subject_kind.as_str().to_owned()),
        &column(new, |one| one.subject_id),
        &column(new, |one| one.transition.from.as_str().to_owned()),
        &column(new, |one| one.transition.to.as_str().to_owned()),
        &column(new, |one| one.transition.trigger.as_str().to_owned()),
        &column(new, |one| one.transition.at),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
