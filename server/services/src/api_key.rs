//! API keys: issue, revoke, authorise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::key::{self, Scope};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::read_label;
use deadbeat_store::Tx;
use deadbeat_store::api_key::ApiKey;

use crate::{ServiceError, Services, secret};

/// Issues a key. The key itself is in no table: it is shown this once.
///
/// # Errors
/// An invalid name, or the database is away.
pub async fn issue(
    services: &Services,
    project: ProjectId,
    name: &str,
    scope: Scope,
) -> Result<(ApiKey, String), ServiceError> {
    let mut tx = services.store.begin().await?;
    let issued = issue_in(&mut tx, project, name, scope, services.now()).await?;
    tx.commit().await?;
    Ok(issued)
}

pub(crate) async fn issue_in(
    tx: &mut Tx,
    project: ProjectId,
    name: &str,
    scope: Scope,
    now: DateTime<Utc>,
) -> Result<(ApiKey, String), ServiceError> {
    let mut faults = Vec::new();
    let name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    let key = secret::new_key(scope);
    let stored = ApiKey {
        id: ApiKeyId::generate(),
        project_id: project,
        name,
        scope,
        prefix: key.chars().take(scope.prefix().len() + 4).collect(),
        created_at: now,
        last_used_at: None,
        revoked_at: None,
    };
    deadbeat_store::api_key::insert(tx, &stored, &secret::digest(&key)).await?;
    Ok((stored, key))
}

/// Revokes a key for good.
///
/// # Errors
/// Not found, or the database is away.
pub async fn revoke(services: &Services, project: ProjectId, id: ApiKeyId) -> Result<(), ServiceError> {
    let mut tx = services.store.begin().await?;
    let found = deadbeat_store::api_key::revoke(&mut tx, project, id, services.now()).await?;
    tx.commit().await?;
    if found {
        Ok(())
    } else {
        Err(ServiceError::NotFound("API key"))
    }
}

/// The stored key of a presented one; None: there is none, or it is revoked. Notes its use, once a minute at most.
///
/// # Errors
/// The database is away.
pub async fn authorise(services: &Services, presented: &str) -> Result<Option<ApiKey>, ServiceError> {
    if !key::is_plausible(presented) {
        return Ok(None);
    }
    let digest = secret::digest(presented);
    let Some(found) = deadbeat_store::api_key::by_digest(&services.reader(), &digest).await? else {
        return Ok(None);
    };
    let now = services.now();
    if found
        .last_used_at
        .is_none_or(|at| now - at >= TimeDelta::minutes(1))
        && first_this_minute(found.id, now)
    {
        let mut tx = services.store.begin().await?;
        deadbeat_store::api_key::touch(&mut tx, std::slice::from_ref(&digest), now).await?;
        tx.commit().await?;
    }
    Ok(Some(found))
}

/// Keeps a burst of requests from writing the same last use many times.
fn first_this_minute(id: ApiKeyId, now: DateTime<Utc>) -> bool {
    static TOUCHED: Mutex<Option<HashMap<ApiKeyId, DateTime<Utc>>>> = Mutex::new(None);
    let mut touched = TOUCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let touched = touched.get_or_insert_default();
    if touched
        .get(&id)
        .is_some_and(|at| now - *at < TimeDelta::minutes(1))
    {
        return false;
    }
    if touched.len() > 10_000 {
        touched.clear();
    }
    touched.insert(id, now);
    true
}
