//! API keys: issue, revoke, authorise.

use std::net::IpAddr;
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{AccountId, ApiKeyId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::read_label;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::key::{self, Scope};
use deadbeat_domain::people::permission::{Action, Refusal};
use deadbeat_store::people::api_key::ApiKey;
use deadbeat_store::people::quota::Counted;
use deadbeat_store::{StoreError, StoreResult, Tx};
use thiserror::Error;
use tracing::field::{DisplayValue, display};

use crate::people::audit;
use crate::people::quota::spend;
use crate::people::security_log::{OnceAMinute, TARGET, shown};
use crate::{ServiceError, Services, feed, secret};

/// Limits how often the last use of a key is written.
static TOUCHED: LazyLock<OnceAMinute> = LazyLock::new(OnceAMinute::default);

/// Issues a key. No table contains the key itself, so only this answer shows it.
///
/// # Errors
/// If the access does not allow this, the name is invalid, the project has too many keys or issued too many today, or the database cannot be reached.
pub async fn issue(
    services: &Services,
    access: &Access,
    name: &str,
    scope: Scope,
) -> Result<(ApiKey, String), ServiceError> {
    let project = access.may(Action::ManageKeys)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let issued = issue_in(&mut tx, project, name, scope, now).await?;
    let a_day = services.quotas.settings().api_keys_per_day;
    spend(&mut tx, &Counted::ApiKeys(project), a_day, now).await?;
    // Count after taking the quota, whose lock stops other transactions from counting at the same time.
    if deadbeat_store::people::api_key::count(&mut tx, project).await? > limits::PROJECT_API_KEYS {
        return Err(ServiceError::Limit {
            what: "API keys",
            limit: limits::PROJECT_API_KEYS,
        });
    }
    let entry = Entry::new(access, project, Act::KeyIssued, issued.0.id.0, now).named(&issued.0.name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "key_issued", project.id = %project, key.id = %issued.0.id, scope = scope.as_str(), by.key.id = by_key(access), by.account.id = by_account(access), "a key was issued");
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
    feed::note(
        tx,
        project,
        ChangeSubject::ApiKey(stored.id),
        ChangeKind::Created,
        now,
    );
    Ok((stored, key))
}

/// Revokes a key for good. A key may revoke itself.
///
/// # Errors
/// If the access does not allow this, the key does not exist, or the database cannot be reached.
pub async fn revoke(services: &Services, access: &Access, id: ApiKeyId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageKeys)?;
    let mut tx = services.store.begin().await?;
    let now = services.now();
    let found = deadbeat_store::people::api_key::revoke(&mut tx, project, id, now).await?;
    if found {
        feed::note(
            &mut tx,
            project,
            ChangeSubject::ApiKey(id),
            ChangeKind::Deleted,
            now,
        );
        audit::note(&mut tx, Entry::new(access, project, Act::KeyRevoked, id.0, now));
    }
    tx.commit().await?;
    if found {
        tracing::info!(target: TARGET, action = "key_revoked", project.id = %project, key.id = %id, by.key.id = by_key(access), by.account.id = by_account(access), "a key was revoked");
        Ok(())
    } else {
        Err(ServiceError::NotFound("API key"))
    }
}

/// Returns the key that acted, for the security log.
fn by_key(access: &Access) -> Option<DisplayValue<ApiKeyId>> {
    match access.actor() {
        Actor::Key { id, .. } => Some(display(id)),
        Actor::Account { .. } | Actor::Operator | Actor::System => None,
    }
}

/// Returns the account that acted, for the security log.
fn by_account(access: &Access) -> Option<DisplayValue<AccountId>> {
    match access.actor() {
        Actor::Account { id, .. } => Some(display(id)),
        Actor::Key { .. } | Actor::Operator | Actor::System => None,
    }
}

/// Why the server refuses a request's key. Each dialect answers in its own format.
#[derive(Debug, Error)]
pub enum Denied {
    /// The request has no key.
    #[error("the request has no key")]
    Missing,
    /// No project has this key, or it was revoked.
    #[error("no project has this key, or it was revoked")]
    Unknown,
    /// The key's scope does not allow this action.
    #[error("{refusal} (the key begins with {prefix})")]
    Refused {
        /// The missing permission.
        refusal: Refusal,
        /// The key.
        key: ApiKeyId,
        /// The first characters of the key, so that a person recognizes the key.
        prefix: String,
    },
    /// An error of the database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the access of a presented key if the key allows this action. Records the key's use, at most once a minute. Logs a refusal in the security
/// log. `client` is the address from which the request comes.
///
/// # Errors
/// If there is no key, the key is unknown or revoked, its scope does not allow the action, or the database cannot be reached.
pub async fn authorise(
    services: &Services,
    presented: Option<&str>,
    action: Action,
    client: Option<IpAddr>,
) -> Result<Access, Denied> {
    let presented = presented.ok_or(Denied::Missing)?;
    let key = find(services, presented).await?.ok_or(Denied::Unknown)?;
    let access = key.access().from(client);
    match access.may(action) {
        Ok(_) => Ok(access),
        Err(refusal) => {
            note_refusal(services, &key, action, client);
            Err(Denied::Refused {
                refusal,
                key: key.id,
                prefix: key.prefix,
            })
        }
    }
}

/// Returns the stored key, or `None` if it does not exist or is revoked. Records its use, at most once a minute.
async fn find(services: &Services, presented: &str) -> StoreResult<Option<ApiKey>> {
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
        // A burst of requests must not write the same last use many times.
        && TOUCHED.is_first(found.id.0.as_u128(), now)
    {
        let mut tx = services.store.begin().await?;
        deadbeat_store::people::api_key::touch(&mut tx, std::slice::from_ref(&digest), now).await?;
        tx.commit().await?;
    }
    Ok(Some(found))
}

/// Logs that a key was used for an action that its scope does not allow.
fn note_refusal(services: &Services, key: &ApiKey, action: Action, client: Option<IpAddr>) {
    if services.refusals.is_first(key.id.0.as_u128(), services.now()) {
        tracing::warn!(target: TARGET, action = "scope_refused", project.id = %key.project_id, key.id = %key.id, scope = key.scope.as_str(), permission = action.name(), wanted = action.least_scope().map(Scope::as_str), address = shown(client), "a key was used for an action that its scope does not allow");
    }
}
