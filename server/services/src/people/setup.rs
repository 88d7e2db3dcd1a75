//! The first start: creates an account, a project and its keys, so that somebody can sign in.

use crate::people::project::Created;
use crate::people::{account, project};
use crate::{ServiceError, Services, secret};

/// What the first start created. It is shown only once.
pub struct FirstStart {
    /// The account's address.
    pub email: String,
    /// The account's password, which is stored nowhere.
    pub password: String,
    /// The project and its keys.
    pub created: Created,
}

/// Creates an account and a project if there is no account yet. Returns `None` if there is one.
///
/// # Errors
/// If the database cannot be reached.
pub async fn first_start(services: &Services, email: &str) -> Result<Option<FirstStart>, ServiceError> {
    if deadbeat_store::people::account::count(&services.reader()).await? > 0 {
        return Ok(None);
    }
    let password = secret::random_text(16);
    let (owner, hash) = account::fresh(services, email, &password).await?;
    // In one transaction: if the process died between two, there would be an account whose password nobody has seen.
    let (mut tx, now) = (services.store.begin().await?, services.now());
    match account::insert(&mut tx, &owner, &hash, now).await {
        Ok(()) => {}
        // Another process that started at the same time has created the account, and shows its password.
        Err(ServiceError::Conflict(_)) => return Ok(None),
        Err(error) => return Err(error),
    }
    let created = project::create_in(&mut tx, "My project", Some(owner.id), now).await?;
    tx.commit().await?;
    Ok(Some(FirstStart {
        email: owner.email,
        password,
        created,
    }))
}
