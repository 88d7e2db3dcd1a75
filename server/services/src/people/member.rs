//! Members of a project: list, change a role, remove, leave, hand the project over.
//!
//! A project always has an owner. Every change takes the lock of the project's members first, and counts the owners under this lock.

use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::people::role::Role;
use deadbeat_store::Tx;
use deadbeat_store::page::Page;
use deadbeat_store::people::member::{self as store, Member};

use crate::people::audit;
use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services};

/// Returns the members of a project, those with the newest accounts first.
///
/// # Errors
/// If the access does not allow this, or the database cannot be reached.
pub async fn list(
    services: &Services,
    access: &Access,
    page: Page<AccountId>,
) -> Result<Vec<Member>, ServiceError> {
    let project = access.may(Action::SeeMembers)?;
    Ok(store::list(&services.reader(), project, page).await?)
}

/// Returns an error if the account is not a member.
///
/// # Errors
/// If the access does not allow this, the account is not a member, or the database cannot be reached.
pub async fn check(services: &Services, access: &Access, account: AccountId) -> Result<(), ServiceError> {
    let project = access.may(Action::SeeMembers)?;
    let mut tx = services.store.begin().await?;
    let found = store::get(&mut tx, project, account).await?;
    found.map(drop).ok_or(ServiceError::NotFound("member"))
}

/// Returns the action that a change between two roles needs: what concerns an owner, only an owner may do.
pub(crate) fn needed(from: Option<Role>, to: Option<Role>) -> Action {
    if [from, to].contains(&Some(Role::Owner)) {
        Action::OwnProject
    } else {
        Action::ManageMembers
    }
}

/// Locks the members of a project, and returns one of them.
async fn locked(tx: &mut Tx, project: ProjectId, account: AccountId) -> Result<Member, ServiceError> {
    if !store::lock(tx, project).await? {
        return Err(ServiceError::NotFound("project"));
    }
    let found = store::get(tx, project, account).await?;
    found.ok_or(ServiceError::NotFound("member"))
}

/// Returns an error if the project has no owner left.
async fn keep_an_owner(tx: &mut Tx, project: ProjectId) -> Result<(), ServiceError> {
    let (_, owners) = store::count(tx, project).await?;
    if owners > 0 {
        return Ok(());
    }
    Err(ServiceError::Conflict(
        "this is the project's last owner; make somebody else an owner first".to_owned(),
    ))
}

/// Changes a member's role. Only an owner makes somebody an owner, or changes the role of one.
///
/// # Errors
/// If the access does not allow this, the account is not a member, the project would have no owner, or the database cannot be reached.
pub async fn set_role(
    services: &Services,
    access: &Access,
    account: AccountId,
    role: Role,
) -> Result<Member, ServiceError> {
    let project = access.may(Action::ManageMembers)?;
    let mut tx = services.store.begin().await?;
    let now = services.now();
    let before = locked(&mut tx, project, account).await?;
    if before.role == role {
        return Ok(before);
    }
    access.may(needed(Some(before.role), Some(role)))?;
    store::set_role(&mut tx, project, account, role).await?;
    keep_an_owner(&mut tx, project).await?;
    let entry = Entry::new(access, project, Act::MemberChanged, account.0, now).changing(["role"]);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "role_changed", project.id = %project, account.id = %account, role = role.as_str(), address = shown(access.address()), "a member has another role");
    Ok(Member { role, ..before })
}

/// Removes a member. Every member may remove itself, which means: leave.
///
/// # Errors
/// If the access does not allow this, the account is not a member, the project would have no owner, or the database cannot be reached.
pub async fn remove(services: &Services, access: &Access, account: AccountId) -> Result<(), ServiceError> {
    let leaves = matches!(access.actor(), Actor::Account { id, .. } if id == account);
    let least = if leaves {
        Action::Read
    } else {
        Action::ManageMembers
    };
    let project = access.may(least)?;
    let mut tx = services.store.begin().await?;
    let now = services.now();
    let before = locked(&mut tx, project, account).await?;
    if !leaves {
        access.may(needed(Some(before.role), None))?;
    }
    store::remove(&mut tx, project, account).await?;
    keep_an_owner(&mut tx, project).await?;
    let act = if leaves {
        Act::MemberLeft
    } else {
        Act::MemberRemoved
    };
    audit::note(&mut tx, Entry::new(access, project, act, account.0, now));
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "member_removed", project.id = %project, account.id = %account, address = shown(access.address()), "a member left or was removed");
    Ok(())
}

/// Hands the project over: a member becomes an owner, and the owner who acts becomes an admin.
///
/// # Errors
/// If the access does not allow this, no account acts, the new owner is not another member, or the database cannot be reached.
pub async fn transfer(services: &Services, access: &Access, to: AccountId) -> Result<(), ServiceError> {
    let project = access.may(Action::OwnProject)?;
    let Actor::Account { id: from, .. } = access.actor() else {
        return Err(ServiceError::Conflict(
            "only an owner's account can hand a project over; give a member the role owner instead"
                .to_owned(),
        ));
    };
    if from == to {
        return Err(ServiceError::Conflict("the project is yours already".to_owned()));
    }
    let mut tx = services.store.begin().await?;
    let now = services.now();
    locked(&mut tx, project, to).await?;
    // The role was read before the lock: another owner may have changed it since.
    let own = store::get(&mut tx, project, from).await?;
    if own.is_none_or(|own| own.role != Role::Owner) {
        return Err(ServiceError::NotFound("project"));
    }
    store::set_role(&mut tx, project, to, Role::Owner).await?;
    store::set_role(&mut tx, project, from, Role::Admin).await?;
    let entry = Entry::new(access, project, Act::ProjectTransferred, project.0, now).changing(["owner"]);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "project_transferred", project.id = %project, account.id = %to, by.account.id = %from, address = shown(access.address()), "a project has a new owner");
    Ok(())
}
