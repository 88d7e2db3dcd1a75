//! Maintenance windows: add, change, remove.

use chrono::TimeDelta;
use deadbeat_domain::alert::window::Window;
use deadbeat_domain::ids::WindowId;
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::alert::waiting::Only;
use deadbeat_store::alert::window::{self, Stored};
use deadbeat_store::people::project::lock_rules;
use serde_json::{Map, Value};

use crate::alert::waiting::decide_anew;
use crate::people::audit;
use crate::{ServiceError, Services};

/// Time for which a window is kept after its end.
const KEPT: TimeDelta = TimeDelta::days(30);

/// Adds a window.
///
/// # Errors
/// If access is refused, fields are invalid, the quota is used up, or the database is away.
pub async fn create(
    services: &Services,
    access: &Access,
    given: &Map<String, Value>,
) -> Result<Stored, ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let now = services.now();
    let window = Window::from_json(given, now).map_err(ServiceError::Invalid)?;
    let id = WindowId::generate();
    let mut tx = services.store.begin().await?;
    lock_rules(&mut tx, project).await?;
    window::delete_ended(&mut tx, project, now - KEPT).await?;
    if window::count(&mut tx, project).await? >= limits::PROJECT_WINDOWS {
        return Err(ServiceError::Limit {
            what: "maintenance windows",
            limit: limits::PROJECT_WINDOWS,
        });
    }
    window::insert(&mut tx, project, id, &window, access.actor(), now).await?;
    let entry = Entry::new(access, project, Act::WindowCreated, id.0, now);
    audit::note(&mut tx, entry.named(&window.name).changing(given.keys()));
    decide_anew(&mut tx, project, Only::All, now).await?;
    let stored = window::lock(&mut tx, project, id).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    stored.ok_or(ServiceError::NotFound("maintenance window"))
}

/// Changes a window. Fields that are not given stay. To make a recurring window happen once, or the other way round,
/// give the new times, and the old ones as null.
///
/// # Errors
/// If access is refused, the window is not found, fields are invalid, or the database is away.
pub async fn update(
    services: &Services,
    access: &Access,
    id: WindowId,
    given: &Map<String, Value>,
) -> Result<Stored, ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    lock_rules(&mut tx, project).await?;
    let before = window::lock(&mut tx, project, id).await?;
    let before = before.ok_or(ServiceError::NotFound("maintenance window"))?;
    let mut members = before.window.to_json();
    members.extend(given.clone());
    let window = Window::from_json(&members, now).map_err(ServiceError::Invalid)?;
    window::update(&mut tx, project, id, &window, now).await?;
    let entry = Entry::new(access, project, Act::WindowChanged, id.0, now);
    audit::note(&mut tx, entry.named(&window.name).changing(given.keys()));
    decide_anew(&mut tx, project, Only::All, now).await?;
    let stored = window::lock(&mut tx, project, id).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    stored.ok_or(ServiceError::NotFound("maintenance window"))
}

/// Removes a window. Alerts that it held go out now, if their faults still last.
///
/// # Errors
/// If access is refused, the window is not found, or the database is away.
pub async fn delete(services: &Services, access: &Access, id: WindowId) -> Result<(), ServiceError> {
    let project = access.may(Action::ChangeMonitors)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    lock_rules(&mut tx, project).await?;
    if !window::delete(&mut tx, project, id).await? {
        return Err(ServiceError::NotFound("maintenance window"));
    }
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::WindowDeleted, id.0, now),
    );
    decide_anew(&mut tx, project, Only::All, now).await?;
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}
