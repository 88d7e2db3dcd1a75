//! API keys: issue, replace, revoke, authorise.

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
use deadbeat_domain::people::key_limit::{AskedLimits, KeyFault, KeyLimits, end_of_replaced};
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

/// What somebody asks for in a new key.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name.
    pub name: String,
    /// Its scope.
    pub scope: Scope,
    /// Its limits.
    pub limits: AskedLimits,
}

impl NewKey {
    /// A key without limits.
    #[must_use]
    pub fn unlimited(name: &str, scope: Scope) -> Self {
        Self {
            name: name.to_owned(),
            scope,
            limits: AskedLimits::default(),
        }
    }
}

/// Issues a key without limits.
///
/// # Errors
/// Those of [`issue_limited`].
pub async fn issue(
    services: &Services,
    access: &Access,
    name: &str,
    scope: Scope,
) -> Result<(ApiKey, String), ServiceError> {
    issue_limited(services, access, NewKey::unlimited(name, scope)).await
}

/// Issues a key. No table contains the key itself, so only this answer shows it.
///
/// # Errors
/// If the access does not allow this, the name or a limit is invalid, the project has too many keys or issued too many today, or the database cannot be reached.
pub async fn issue_limited(
    services: &Services,
    access: &Access,
    new: NewKey,
) -> Result<(ApiKey, String), ServiceError> {
    let project = access.may(Action::ManageKeys)?;
    let now = services.now();
    let scope = new.scope;
    let mut tx = services.store.begin().await?;
    let issued = issue_in(&mut tx, project, new, now).await?;
    charge(services, &mut tx, project, now).await?;
    let entry = Entry::new(access, project, Act::KeyIssued, issued.0.id.0, now).named(&issued.0.name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "key_issued", project.id = %project, key.id = %issued.0.id, scope = scope.as_str(), by.key.id = by_key(access), by.account.id = by_account(access), "a key was issued");
    Ok(issued)
}

/// Takes a new key from the quota of the day, and checks the limit on the number of keys.
async fn charge(
    services: &Services,
    tx: &mut Tx,
    project: ProjectId,
    now: DateTime<Utc>,
) -> Result<(), ServiceError> {
    let a_day = services.quotas.settings().api_keys_per_day;
    spend(tx, &Counted::ApiKeys(project), a_day, now).await?;
    // Count after taking the quota, whose lock stops other transactions from counting at the same time.
    if deadbeat_store::people::api_key::count(tx, project, now).await? > limits::PROJECT_API_KEYS {
        return Err(ServiceError::Limit {
            what: "API keys",
            limit: limits::PROJECT_API_KEYS,
        });
    }
    Ok(())
}

pub(crate) async fn issue_in(
    tx: &mut Tx,
    project: ProjectId,
    new: NewKey,
    now: DateTime<Utc>,
) -> Result<(ApiKey, String), ServiceError> {
    let mut faults = Vec::new();
    let name = read_label("/name", &new.name, limits::NAME_CHARS, &mut faults);
    let limits = new.limits.read(new.scope, now, &mut faults);
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    make(tx, project, name, new.scope, limits, now).await
}

/// Returns the limits of the key that acts. Other actors have none.
///
/// # Errors
/// If the key does not exist any more, or the database cannot be reached.
pub(crate) async fn limits_of(
    tx: &mut Tx,
    access: &Access,
    project: ProjectId,
) -> Result<KeyLimits, ServiceError> {
    let Actor::Key { id, .. } = access.actor() else {
        return Ok(KeyLimits::default());
    };
    let limits = deadbeat_store::people::api_key::limits_of(tx, project, id).await?;
    limits.ok_or(ServiceError::NotFound("API key"))
}

/// Makes a key from checked parts.
async fn make(
    tx: &mut Tx,
    project: ProjectId,
    name: String,
    scope: Scope,
    limits: KeyLimits,
    now: DateTime<Utc>,
) -> Result<(ApiKey, String), ServiceError> {
    let key = secret::new_key(scope);
    let stored = ApiKey {
        id: ApiKeyId::generate(),
        project_id: project,
        name,
        scope,
        prefix: key.chars().take(scope.prefix().len() + 4).collect(),
        created_at: now,
        last_used_at: None,
        last_used_addr: None,
        revoked_at: None,
        limits,
        replaced_by: None,
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

/// Returns an error if the project has no key of this id.
///
/// # Errors
/// If the access does not allow this, the key does not exist, or the database cannot be reached.
pub async fn check(services: &Services, access: &Access, id: ApiKeyId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageKeys)?;
    let mut tx = services.store.begin().await?;
    let name = deadbeat_store::people::api_key::name_of(&mut tx, project, id).await?;
    name.map(drop).ok_or(ServiceError::NotFound("API key"))
}

/// Replaces a key by a new one of the same name, scope and limits. The old key stays valid for the overlap, so that its users can change to the new
/// one. The new key has no end: an end of the old key was planned for that secret.
///
/// Only this answer shows the new key.
///
/// # Errors
/// If the access does not allow this, the key does not exist, it was revoked, replaced or has expired, the overlap is invalid, the project issued too
/// many keys today, or the database cannot be reached.
pub async fn rotate(
    services: &Services,
    access: &Access,
    id: ApiKeyId,
    overlap_seconds: Option<i64>,
) -> Result<(ApiKey, String), ServiceError> {
    let project = access.may(Action::ManageKeys)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let old = deadbeat_store::people::api_key::lock(&mut tx, project, id).await?;
    let old = old.ok_or(ServiceError::NotFound("API key"))?;
    let ends_at = end_of_replaced(old.limits.expires_at, overlap_seconds, now)
        .map_err(|fault| ServiceError::Invalid(vec![fault]))?;
    let over = match (old.revoked_at, old.replaced_by, old.limits.expires_at) {
        (Some(_), _, _) => Some("the key is revoked"),
        (None, Some(_), _) => Some("the key was replaced already; replace the new key instead"),
        (None, None, Some(end)) if end <= now => Some("the key has expired; issue a new one"),
        _ => None,
    };
    if let Some(reason) = over {
        return Err(ServiceError::Conflict(reason.to_owned()));
    }
    let limits = KeyLimits {
        expires_at: None,
        ..old.limits.clone()
    };
    let made = make(&mut tx, project, old.name.clone(), old.scope, limits, now).await?;
    deadbeat_store::people::api_key::replace(&mut tx, project, id, made.0.id, ends_at).await?;
    charge(services, &mut tx, project, now).await?;
    feed::note(
        &mut tx,
        project,
        ChangeSubject::ApiKey(id),
        ChangeKind::Changed,
        now,
    );
    let entry = Entry::new(access, project, Act::KeyRotated, id.0, now).named(&old.name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "key_rotated", project.id = %project, key.id = %id, new_key.id = %made.0.id, by.key.id = by_key(access), by.account.id = by_account(access), "a key was replaced");
    Ok(made)
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
    /// The key is valid, but not now, from there, or for this.
    #[error("{fault} (the key begins with {prefix})")]
    Limited {
        /// The limit that does not allow the request.
        fault: KeyFault,
        /// The key.
        key: ApiKeyId,
        /// The first characters of the key.
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
/// If there is no key, the key is unknown or revoked, its scope or its limits do not allow the action, or the database cannot be reached.
pub async fn authorise(
    services: &Services,
    presented: Option<&str>,
    action: Action,
    client: Option<IpAddr>,
) -> Result<Access, Denied> {
    let (access, key) = authorise_part(services, presented, action, client).await?;
    if key.limits.is_partial() {
        return Err(limited(services, KeyFault::Part, &key, client));
    }
    Ok(access)
}

/// Does the same for an action that a key with a limit to slugs or tags may do in part. The caller must check this limit of the returned key.
///
/// # Errors
/// Those of [`authorise`], without the limit to slugs and tags.
pub async fn authorise_part(
    services: &Services,
    presented: Option<&str>,
    action: Action,
    client: Option<IpAddr>,
) -> Result<(Access, ApiKey), Denied> {
    let presented = presented.ok_or(Denied::Missing)?;
    let digest = secret::digest(presented);
    let key = find(services, presented, &digest).await?.ok_or(Denied::Unknown)?;
    if let Err(fault) = key.limits.allow(client, services.now()) {
        return Err(limited(services, fault, &key, client));
    }
    note_use(services, &key, &digest, client).await?;
    let access = key.access().from(client);
    match access.may(action) {
        Ok(_) => Ok((access, key)),
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

/// Returns the stored key, or `None` if it does not exist or is revoked.
async fn find(services: &Services, presented: &str, digest: &[u8]) -> StoreResult<Option<ApiKey>> {
    if !key::is_plausible(presented) {
        return Ok(None);
    }
    deadbeat_store::people::api_key::by_digest(&services.reader(), digest).await
}

/// Records a key's use, at most once a minute.
async fn note_use(
    services: &Services,
    found: &ApiKey,
    digest: &[u8],
    client: Option<IpAddr>,
) -> StoreResult<()> {
    let now = services.now();
    if found
        .last_used_at
        .is_none_or(|at| now - at >= TimeDelta::minutes(1))
        // A burst of requests must not write the same last use many times.
        && TOUCHED.is_first(found.id.0.as_u128(), now)
    {
        let mut tx = services.store.begin().await?;
        let address = client.map(|address| address.to_string());
        deadbeat_store::people::api_key::touch(&mut tx, &[digest.to_vec()], &[address], now).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Makes the refusal of a key beyond its limits, and logs it.
fn limited(services: &Services, fault: KeyFault, key: &ApiKey, client: Option<IpAddr>) -> Denied {
    if services.refusals.is_first(key.id.0.as_u128(), services.now()) {
        tracing::warn!(target: TARGET, action = fault.code(), project.id = %key.project_id, key.id = %key.id, address = shown(client), "a key was used beyond its limits");
    }
    Denied::Limited {
        fault,
        key: key.id,
        prefix: key.prefix.clone(),
    }
}

/// Logs that a key was used for an action that its scope does not allow.
fn note_refusal(services: &Services, key: &ApiKey, action: Action, client: Option<IpAddr>) {
    if services.refusals.is_first(key.id.0.as_u128(), services.now()) {
        tracing::warn!(target: TARGET, action = "scope_refused", project.id = %key.project_id, key.id = %key.id, scope = key.scope.as_str(), permission = action.name(), wanted = action.least_scope().map(Scope::as_str), address = shown(client), "a key was used for an action that its scope does not allow");
    }
}
