//! API keys: issue, revoke, authorise.

use std::net::IpAddr;
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::read_label;
use deadbeat_domain::people::key::{self, Scope};
use deadbeat_store::Tx;
use deadbeat_store::people::allowance::What;
use deadbeat_store::people::api_key::ApiKey;

use crate::people::quota::spend;
use crate::people::security_log::{OnceAMinute, TARGET, shown};
use crate::{ServiceError, Services, secret};

/// Keys whose last use was written.
static TOUCHED: LazyLock<OnceAMinute> = LazyLock::new(OnceAMinute::default);

/// Issues a key, on behalf of another key. The key itself is in no table: it is shown this once.
///
/// # Errors
/// An invalid name, too many keys (at all, or today), or the database is away.
pub async fn issue(
    services: &Services,
    project: ProjectId,
    by: ApiKeyId,
    name: &str,
    scope: Scope,
) -> Result<(ApiKey, String), ServiceError> {
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let issued = issue_in(&mut tx, project, name, scope, now).await?;
    let a_day = services.quotas.settings().api_keys_per_day;
    spend(&mut tx, project, What::ApiKeys, a_day, now).await?;
    // Behind the allowance, whose lock keeps others from counting meanwhile.
    if deadbeat_store::people::api_key::count(&mut tx, project).await? > limits::PROJECT_API_KEYS {
        return Err(ServiceError::Limit {
            what: "API keys",
            limit: limits::PROJECT_API_KEYS,
        });
    }
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "key_issued", project.id = %project, key.id = %issued.0.id, scope = scope.as_str(), by.key.id = %by, "a key was issued");
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
    deadbeat_store::people::api_key::insert(tx, &stored, &secret::digest(&key)).await?;
    Ok((stored, key))
}

/// Revokes a key for good, on behalf of another key or itself.
///
/// # Errors
/// Not found, or the database is away.
pub async fn revoke(
    services: &Services,
    project: ProjectId,
    by: ApiKeyId,
    id: ApiKeyId,
) -> Result<(), ServiceError> {
    let mut tx = services.store.begin().await?;
    let found = deadbeat_store::people::api_key::revoke(&mut tx, project, id, services.now()).await?;
    tx.commit().await?;
    if found {
        tracing::info!(target: TARGET, action = "key_revoked", project.id = %project, key.id = %id, by.key.id = %by, "a key was revoked");
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
    let Some(found) = deadbeat_store::people::api_key::by_digest(&services.reader(), &digest).await? else {
        return Ok(None);
    };
    let now = services.now();
    if found
        .last_used_at
        .is_none_or(|at| now - at >= TimeDelta::minutes(1))
        // A burst of requests does not write the same last use many times.
        && TOUCHED.is_first(found.id.0.as_u128(), now)
    {
        let mut tx = services.store.begin().await?;
        deadbeat_store::people::api_key::touch(&mut tx, std::slice::from_ref(&digest), now).await?;
        tx.commit().await?;
    }
    Ok(Some(found))
}

/// Notes that a key was used for what its scope does not allow.
pub fn note_refusal(services: &Services, key: &ApiKey, wanted: Scope, client: Option<IpAddr>) {
    if services.refusals.is_first(key.id.0.as_u128(), services.now()) {
        tracing::warn!(target: TARGET, action = "scope_refused", project.id = %key.project_id, key.id = %key.id, scope = key.scope.as_str(), wanted = wanted.as_str(), address = shown(client), "a key was used for what it may not do");
    }
}
