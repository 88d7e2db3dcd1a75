//! The project that the pages of a session show without being asked for one.

use deadbeat_domain::ids::ProjectId;
use deadbeat_store::people::chosen as store;

use crate::{ServiceError, Services, secret};

/// Returns the project that a session remembers. If the request asks for another one, the session remembers that one from now on, provided that its account is
/// a member there.
///
/// # Errors
/// If the database cannot be reached.
pub async fn remembered(
    services: &Services,
    session: &str,
    asked: Option<ProjectId>,
) -> Result<Option<ProjectId>, ServiceError> {
    let digest = secret::digest(session);
    let before = store::of_session(&services.reader(), &digest).await?;
    if let Some(asked) = asked
        && before != Some(asked)
    {
        let mut tx = services.store.begin().await?;
        store::remember(&mut tx, &digest, asked).await?;
        tx.commit().await?;
    }
    Ok(before)
}
