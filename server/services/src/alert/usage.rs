//! Keeps channels and rotations from being deleted while rotations or escalation policies name them.

use deadbeat_domain::ids::{ChannelId, ProjectId, RotationId};
use deadbeat_store::alert::policy::{self, StoredPolicy};
use deadbeat_store::alert::rotation::{self, StoredRotation};
use deadbeat_store::{StoreResult, Tx, Unreadable, with_sources};

use crate::ServiceError;

/// Number of names that a refusal lists at most.
const NAMED: usize = 5;

/// Refuses the deletion of a channel that a rotation or a policy names. The caller holds the channel's lock,
/// so no other transaction can name the channel meanwhile.
pub(crate) async fn refuse_channel_in_use(
    tx: &mut Tx,
    project: ProjectId,
    id: ChannelId,
) -> Result<(), ServiceError> {
    let rotations = readable(rotation::all(tx, project).await?)
        .filter(|stored| stored.rotation.channels().any(|named| named == id))
        .map(|stored: StoredRotation| format!("rotation {:?}", stored.rotation.settings().name));
    let mut users: Vec<String> = rotations.collect();
    users.extend(policies(tx, project, |stored| stored.policy.names_channel(id)).await?);
    refuse("channel", &users)
}

/// Refuses the deletion of a rotation that a policy names. The caller holds the rotation's lock,
/// so no other transaction can name the rotation meanwhile.
pub(crate) async fn refuse_rotation_in_use(
    tx: &mut Tx,
    project: ProjectId,
    id: RotationId,
) -> Result<(), ServiceError> {
    let users = policies(tx, project, |stored| stored.policy.names_rotation(id)).await?;
    refuse("rotation", &users)
}

async fn policies(
    tx: &mut Tx,
    project: ProjectId,
    names: impl Fn(&StoredPolicy) -> bool,
) -> StoreResult<Vec<String>> {
    let all = readable(policy::all(tx, project).await?);
    Ok(all
        .filter(names)
        .map(|stored| format!("escalation policy {:?}", stored.policy.settings().name))
        .collect())
}

/// Returns the rows that can be read. An unreadable row prevents no deletion: nobody could repair it through the API.
fn readable<T>(rows: Vec<Result<T, Unreadable>>) -> impl Iterator<Item = T> {
    rows.into_iter().filter_map(|row| {
        row.inspect_err(|unreadable| {
            tracing::error!(row.id = %unreadable.id, error = %with_sources(&unreadable.error), "a rotation or an escalation policy cannot be read");
        })
        .ok()
    })
}

fn refuse(what: &str, users: &[String]) -> Result<(), ServiceError> {
    if users.is_empty() {
        return Ok(());
    }
    let mut named = users[..users.len().min(NAMED)].join(", ");
    if users.len() > NAMED {
        named = format!("{named} and {} more", users.len() - NAMED);
    }
    Err(ServiceError::Conflict(format!(
        "the {what} is in use by {named}; remove it there first"
    )))
}
