//! Projects.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, read_label};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::people::role::Role;
use deadbeat_store::Tx;
use deadbeat_store::people::project::Project;
use deadbeat_store::people::quota::Counted;

use crate::people::api_key::{self, NewKey};
use crate::people::audit;
use crate::people::quota::spend;
use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services, feed};

/// A new project with its first keys. Only this answer contains them.
pub struct Created {
    /// The project.
    pub project: Project,
    /// The key that may manage.
    pub api_key: String,
    /// The key that may read.
    pub read_key: String,
    /// The key that may signal, and register the senders of signals.
    pub ping_key: String,
}

/// Creates a project with one key of each scope. Without an owner, the first account owns the project.
///
/// # Errors
/// If the name is invalid, or the database cannot be reached.
pub async fn create(
    services: &Services,
    name: &str,
    owner: Option<AccountId>,
) -> Result<Created, ServiceError> {
    let mut tx = services.store.begin().await?;
    let created = create_in(&mut tx, name, owner, services.now()).await?;
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "project_created", project.id = %created.project.id, "a project was created on the command line, with a key of each scope");
    Ok(created)
}

/// Creates a project for an account, which then owns it.
///
/// # Errors
/// If the name is invalid, the account owns too many projects or created too many today, or the database cannot be reached.
pub async fn create_by_account(
    services: &Services,
    account: AccountId,
    name: &str,
    address: Option<IpAddr>,
) -> Result<Created, ServiceError> {
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let created = create_in(&mut tx, name, Some(account), now).await?;
    // This counts the new project, and locks the account against its other requests.
    if deadbeat_store::people::project::count_owned(&mut tx, account).await? > limits::ACCOUNT_PROJECTS {
        return Err(ServiceError::Limit {
            what: "projects of an account",
            limit: limits::ACCOUNT_PROJECTS,
        });
    }
    let a_day = limits::ACCOUNT_PROJECTS_A_DAY;
    spend(&mut tx, &Counted::Projects(account), a_day, now).await?;
    let (id, role) = (account, Role::Owner);
    let project = created.project.id;
    let access = Access::new(project, Actor::Account { id, role }).from(address);
    let entry =
        Entry::new(&access, project, Act::ProjectCreated, project.0, now).named(&created.project.name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    tracing::info!(target: TARGET, action = "project_created", project.id = %project, by.account.id = %account, address = shown(address), "an account created a project, with a key of each scope");
    Ok(created)
}

/// Creates a project like [`create`], in the caller's transaction.
pub(crate) async fn create_in(
    tx: &mut Tx,
    name: &str,
    owner: Option<AccountId>,
    now: DateTime<Utc>,
) -> Result<Created, ServiceError> {
    let mut faults = Vec::new();
    let name = read_label("/name", name, limits::NAME_CHARS, &mut faults);
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    let project = Project {
        id: ProjectId::generate(),
        name,
        reminder_seconds: Some(86_400),
        created_at: now,
    };
    deadbeat_store::people::project::insert(tx, &project).await?;
    let owner = match owner {
        Some(owner) => Some(owner),
        None => deadbeat_store::people::project::first_account(tx).await?,
    };
    if let Some(owner) = owner {
        deadbeat_store::people::project::add_member(tx, project.id, owner, Role::Owner, now).await?;
    }
    let mut keys = Vec::new();
    for (name, scope) in [
        ("first API key", Scope::Write),
        ("first read key", Scope::Read),
        ("first ping key", Scope::Ping),
    ] {
        let new = NewKey::unlimited(name, scope);
        keys.push(api_key::issue_in(tx, project.id, new, now).await?.1);
    }
    let ping_key = keys.pop().unwrap_or_default();
    let read_key = keys.pop().unwrap_or_default();
    let api_key = keys.pop().unwrap_or_default();
    Ok(Created {
        project,
        api_key,
        read_key,
        ping_key,
    })
}

/// Returns the number of a project, which clients of other products use in place of its id.
///
/// # Errors
/// If the project does not exist, or the database cannot be reached.
pub async fn number(services: &Services, id: ProjectId) -> Result<i64, ServiceError> {
    deadbeat_store::people::project::number(&services.reader(), id)
        .await?
        .ok_or(ServiceError::NotFound("project"))
}

/// Changes a project's name, or the seconds between reminders of open incidents (`Some(None)`: no reminders).
///
/// # Errors
/// If the access does not allow this, the project does not exist, fields are invalid, or the database cannot be reached.
pub async fn update(
    services: &Services,
    access: &Access,
    name: Option<&str>,
    reminder_seconds: Option<Option<i32>>,
) -> Result<Project, ServiceError> {
    let id = access.may(Action::ChangeProject)?;
    let mut faults = Vec::new();
    let name = name.map(|name| read_label("/name", name, limits::NAME_CHARS, &mut faults));
    if let Some(Some(seconds)) = reminder_seconds
        && seconds < 60
    {
        faults.push(FieldError::new(
            "/reminder_seconds",
            format!("is {seconds}; 60 or more is allowed, or null (never)"),
        ));
    }
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    let mut tx = services.store.begin().await?;
    let now = services.now();
    let found =
        deadbeat_store::people::project::update(&mut tx, id, name.as_deref(), reminder_seconds).await?;
    if !found {
        return Err(ServiceError::NotFound("project"));
    }
    feed::note(&mut tx, id, ChangeSubject::Project(id), ChangeKind::Changed, now);
    let fields = name.as_ref().map(|_| "name").into_iter();
    let fields = fields.chain(reminder_seconds.map(|_| "reminder_seconds"));
    audit::note(
        &mut tx,
        Entry::new(access, id, Act::ProjectChanged, id.0, now).changing(fields),
    );
    tx.commit().await?;
    deadbeat_store::people::project::get(&services.reader(), id)
        .await?
        .ok_or(ServiceError::NotFound("project"))
}
