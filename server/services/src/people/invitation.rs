//! Invitations: make, list, withdraw, accept.
//!
//! An invitation is a link with a secret token, which works once and has an end. It holds only as long as its maker may invite: the invitations of a member who
//! was removed, and of a revoked key, do not open.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::is_email;
use deadbeat_domain::ids::{AccountId, ApiKeyId, InvitationId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::people::role::Role;
use deadbeat_store::Tx;
use deadbeat_store::page::Page;
use deadbeat_store::people::account::Account;
use deadbeat_store::people::invitation::{self as store, Invitation};
use deadbeat_store::people::member as members;
use deadbeat_store::people::quota::Counted;

use crate::people::audit;
use crate::people::member::needed;
use crate::people::quota::spend;
use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services, secret};

/// Characters of a link's token: 256 bits.
const TOKEN_CHARS: usize = 43;
/// The seconds for which an invitation holds if nobody says otherwise: 7 days.
const USUAL_SECONDS: i64 = 7 * 86_400;
/// The fewest and the most seconds for which one may hold: an hour and 30 days.
const ALLOWED_SECONDS: std::ops::RangeInclusive<i64> = 3_600..=30 * 86_400;

/// What somebody asks for in a new invitation.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// The mail address of the only account that may accept. None: whoever has the link may.
    pub email: Option<String>,
    /// The role that the new member gets.
    pub role: Role,
    /// For how many seconds it holds. None: [`USUAL_SECONDS`].
    pub seconds: Option<i64>,
}

/// Makes an invitation. Returns it with its link. Only this answer contains the link.
///
/// # Errors
/// If the access does not allow this or this role, a field is invalid, the project has too many invitations or made too many today, or the database cannot be
/// reached.
pub async fn create(
    services: &Services,
    access: &Access,
    new: NewInvitation,
) -> Result<(Invitation, String), ServiceError> {
    let project = access.may(Action::ManageMembers)?;
    access.may(needed(None, Some(new.role)))?;
    let now = services.now();
    let token = secret::random_text(TOKEN_CHARS);
    let (maker_kind, maker_id) = maker(access.actor());
    let invitation = read(new, project, now, maker_kind, maker_id)?;
    let mut tx = services.store.begin().await?;
    if !members::lock(&mut tx, project).await? {
        return Err(ServiceError::NotFound("project"));
    }
    store::insert(&mut tx, &invitation, &secret::digest(&token)).await?;
    let a_day = limits::PROJECT_INVITATIONS_A_DAY;
    spend(&mut tx, &Counted::Invitations(project), a_day, now).await?;
    if store::count(&mut tx, project, now).await? > limits::PROJECT_INVITATIONS {
        return Err(ServiceError::Limit {
            what: "invitations",
            limit: limits::PROJECT_INVITATIONS,
        });
    }
    let entry = Entry::new(access, project, Act::InvitationCreated, invitation.id.0, now).changing(["role"]);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "invited", project.id = %project, invitation.id = %invitation.id, role = invitation.role.as_str(), address = shown(access.address()), "somebody was invited to a project");
    let link = format!("{}/invitations/{token}", services.site().url);
    Ok((invitation, link))
}

fn maker(actor: Actor) -> (&'static str, Option<uuid::Uuid>) {
    match actor {
        Actor::Account { id, .. } => ("account", Some(id.0)),
        Actor::Key { id, .. } => ("key", Some(id.0)),
        Actor::Operator | Actor::System => ("operator", None),
    }
}

/// Checks the fields of a new invitation.
fn read(
    new: NewInvitation,
    project: ProjectId,
    now: DateTime<Utc>,
    maker_kind: &str,
    maker_id: Option<uuid::Uuid>,
) -> Result<Invitation, ServiceError> {
    let mut faults = Vec::new();
    let email = new.email.map(|email| email.trim().to_lowercase());
    if let Some(email) = email.as_deref().filter(|email| !is_email(email)) {
        faults.push(FieldError::new(
            "/email",
            format!("is {:?}; one mail address is allowed", clip(email)),
        ));
    }
    let seconds = new.seconds.unwrap_or(USUAL_SECONDS);
    if !ALLOWED_SECONDS.contains(&seconds) {
        faults.push(FieldError::new(
            "/expires_in_seconds",
            format!(
                "is {seconds}; {} to {} are allowed",
                ALLOWED_SECONDS.start(),
                ALLOWED_SECONDS.end()
            ),
        ));
    }
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    Ok(Invitation {
        id: InvitationId::generate(),
        project_id: project,
        email,
        role: new.role,
        maker_kind: maker_kind.to_owned(),
        maker_id,
        created_at: now,
        expires_at: now + TimeDelta::seconds(seconds),
    })
}

/// Returns the invitations of a project that have not ended, newest first.
///
/// # Errors
/// If the access does not allow this, or the database cannot be reached.
pub async fn list(
    services: &Services,
    access: &Access,
    page: Page<InvitationId>,
) -> Result<Vec<Invitation>, ServiceError> {
    let project = access.may(Action::ManageMembers)?;
    Ok(store::list(&services.reader(), project, page, services.now()).await?)
}

/// Withdraws an invitation: its link does not open any more.
///
/// # Errors
/// If the access does not allow this, the invitation does not exist, or the database cannot be reached.
pub async fn withdraw(services: &Services, access: &Access, id: InvitationId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageMembers)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    if !members::lock(&mut tx, project).await? {
        return Err(ServiceError::NotFound("project"));
    }
    let role = store::delete(&mut tx, project, id).await?;
    let role = role.ok_or(ServiceError::NotFound("invitation"))?;
    access.may(needed(None, Some(role)))?;
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::InvitationWithdrawn, id.0, now),
    );
    tx.commit().await?;
    Ok(())
}

/// An invitation, as its link shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The project.
    pub project: ProjectId,
    /// The project's name.
    pub project_name: String,
    /// The role that the new member gets.
    pub role: Role,
    /// The mail address of the only account that may accept.
    pub email: Option<String>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Returns the offer behind a link. None: no such link opens, or does not open any more.
///
/// # Errors
/// If the database cannot be reached.
pub async fn inspect(services: &Services, token: &str) -> Result<Option<Offer>, ServiceError> {
    let Some(found) = find(services, token).await? else {
        return Ok(None);
    };
    let project = deadbeat_store::people::project::get(&services.reader(), found.project_id).await?;
    Ok(project.map(|project| Offer {
        project: project.id,
        project_name: project.name,
        role: found.role,
        email: found.email,
        expires_at: found.expires_at,
    }))
}

async fn find(services: &Services, token: &str) -> Result<Option<Invitation>, ServiceError> {
    if token.len() != TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let digest = secret::digest(token);
    Ok(store::by_digest(&services.reader(), &digest, services.now()).await?)
}

/// Makes an account a member by a link. Of two accounts that accept at once, one becomes a member.
///
/// # Errors
/// If the link does not open, it is for another address, the account is a member already, the project has too many members, or the database cannot be reached.
pub async fn accept(
    services: &Services,
    account: &Account,
    token: &str,
    address: Option<std::net::IpAddr>,
) -> Result<ProjectId, ServiceError> {
    let mut tx = services.store.begin().await?;
    let project = accept_in(services, &mut tx, account, token, address).await?;
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "invitation_accepted", project.id = %project, account.id = %account.id, address = shown(address), "somebody accepted an invitation");
    Ok(project)
}

/// Does the same in the caller's transaction, which may have just made the account.
///
/// # Errors
/// Those of [`accept`]. The caller must then roll back.
pub(crate) async fn accept_in(
    services: &Services,
    tx: &mut Tx,
    account: &Account,
    token: &str,
    address: Option<std::net::IpAddr>,
) -> Result<ProjectId, ServiceError> {
    let gone = || ServiceError::NotFound("invitation");
    let now = services.now();
    // Without a lock: it only says which project to lock.
    let project = find(services, token).await?.ok_or_else(gone)?.project_id;
    if !members::lock(tx, project).await? {
        return Err(gone());
    }
    let taken = store::take(tx, project, &secret::digest(token), now).await?;
    let taken = taken.ok_or_else(gone)?;
    if taken.email.as_ref().is_some_and(|email| *email != account.email) {
        return Err(ServiceError::Conflict(
            "this invitation is for another mail address; sign in with the account of that address"
                .to_owned(),
        ));
    }
    if !still_invites(tx, &taken, now).await? {
        return Err(gone());
    }
    if !members::add(tx, project, account.id, taken.role, now).await? {
        return Err(ServiceError::Conflict(
            "you are a member of this project already".to_owned(),
        ));
    }
    if members::count(tx, project).await?.0 > limits::PROJECT_MEMBERS {
        return Err(ServiceError::Limit {
            what: "members",
            limit: limits::PROJECT_MEMBERS,
        });
    }
    let (id, role) = (account.id, taken.role);
    let access = Access::new(project, Actor::Account { id, role }).from(address);
    audit::note(
        tx,
        Entry::new(&access, project, Act::InvitationAccepted, taken.id.0, now).changing(["role"]),
    );
    Ok(project)
}

/// True if the maker of an invitation may still invite somebody with that role.
async fn still_invites(
    tx: &mut Tx,
    invitation: &Invitation,
    now: DateTime<Utc>,
) -> Result<bool, ServiceError> {
    let project = invitation.project_id;
    Ok(match (invitation.maker_kind.as_str(), invitation.maker_id) {
        ("account", Some(id)) => members::get(tx, project, AccountId(id))
            .await?
            .is_some_and(|maker| {
                Action::ManageMembers.is_of_role(maker.role)
                    && needed(None, Some(invitation.role)).is_of_role(maker.role)
            }),
        ("key", Some(id)) => {
            let key = deadbeat_store::people::api_key::lock(tx, project, ApiKeyId(id)).await?;
            key.is_some_and(|key| {
                let is_over = key.limits.expires_at.is_some_and(|end| now >= end);
                key.revoked_at.is_none() && !is_over
            })
        }
        _ => true,
    })
}
