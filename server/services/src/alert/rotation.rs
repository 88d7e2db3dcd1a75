//! Rotations: add, change, remove.

use std::collections::HashSet;

use deadbeat_domain::alert::rotation::{Rotation, RotationSettings};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ChannelId, ProjectId, RotationId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Tx;
use deadbeat_store::alert::rotation::{self as store, StoredRotation};
use deadbeat_store::alert::usage::{hold_channels, lock_rotation_to_delete};

use crate::alert::usage;
use crate::people::audit;
use crate::{ServiceError, Services, feed};

/// Adds a rotation.
///
/// # Errors
/// If access is refused, settings are invalid, the quota is used up, or the database is away.
pub async fn create(
    services: &Services,
    access: &Access,
    settings: RotationSettings,
) -> Result<StoredRotation, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let rotation = Rotation::read(settings).map_err(ServiceError::Invalid)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    check_channels(&mut tx, project, &rotation).await?;
    if store::count(&mut tx, project).await? >= limits::PROJECT_ROTATIONS {
        return Err(ServiceError::Limit {
            what: "rotations",
            limit: limits::PROJECT_ROTATIONS,
        });
    }
    let new = StoredRotation {
        id: RotationId::generate(),
        project_id: project,
        rotation,
        created_at: now,
        updated_at: now,
    };
    store::insert(&mut tx, &new).await?;
    let subject = ChangeSubject::Rotation(new.id);
    feed::note(&mut tx, project, subject, ChangeKind::Created, now);
    let entry =
        Entry::new(access, project, Act::RotationCreated, new.id.0, now).named(&new.rotation.settings().name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    Ok(new)
}

/// Changes a rotation. `change` writes into its settings, which are then checked as a whole.
///
/// # Errors
/// If access is refused, the rotation is not found, settings are invalid, or the database is away.
pub async fn update(
    services: &Services,
    access: &Access,
    id: RotationId,
    change: impl FnOnce(&mut RotationSettings),
) -> Result<StoredRotation, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let stored = store::lock(&mut tx, project, id).await?;
    let mut stored = stored.ok_or(ServiceError::NotFound("rotation"))?;
    let mut settings = stored.rotation.settings().clone();
    change(&mut settings);
    stored.rotation = Rotation::read(settings).map_err(ServiceError::Invalid)?;
    stored.updated_at = now;
    check_channels(&mut tx, project, &stored.rotation).await?;
    store::update(&mut tx, &stored).await?;
    let subject = ChangeSubject::Rotation(id);
    feed::note(&mut tx, project, subject, ChangeKind::Changed, now);
    let entry =
        Entry::new(access, project, Act::RotationChanged, id.0, now).named(&stored.rotation.settings().name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    Ok(stored)
}

/// Removes a rotation.
///
/// # Errors
/// If access is refused, the rotation is not found, an escalation policy names it, or the database is away.
pub async fn delete(services: &Services, access: &Access, id: RotationId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let mut tx = services.store.begin().await?;
    if !lock_rotation_to_delete(&mut tx, project, id).await? {
        return Err(ServiceError::NotFound("rotation"));
    }
    usage::refuse_rotation_in_use(&mut tx, project, id).await?;
    store::delete(&mut tx, project, id).await?;
    let (subject, now) = (ChangeSubject::Rotation(id), services.now());
    feed::note(&mut tx, project, subject, ChangeKind::Deleted, now);
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::RotationDeleted, id.0, now),
    );
    tx.commit().await?;
    Ok(())
}

/// Checks that the project has the channels, and keeps them from being deleted until the commit.
async fn check_channels(tx: &mut Tx, project: ProjectId, rotation: &Rotation) -> Result<(), ServiceError> {
    let named: HashSet<ChannelId> = rotation.channels().collect();
    let named: Vec<ChannelId> = named.into_iter().collect();
    let found = hold_channels(tx, project, &named).await?;
    let mut faults = Vec::new();
    for (place, person) in rotation.settings().people.iter().enumerate() {
        for (index, id) in person.channels.iter().enumerate() {
            if !found.contains(id) {
                let pointer = format!("/people/{place}/channels/{index}");
                faults.push(FieldError::new(
                    pointer,
                    format!("is {id}; the project has no such channel"),
                ));
            }
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::Invalid(faults))
    }
}
