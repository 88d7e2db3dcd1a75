//! Escalation policies: add, change, remove.

use deadbeat_domain::alert::escalation::{Policy, PolicySettings, TargetKind};
use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ChannelId, EscalationPolicyId, ProjectId, RotationId};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::alert::policy::{self as store, StoredPolicy};
use deadbeat_store::alert::usage::{hold_channels, hold_rotations};
use deadbeat_store::{StoreError, Tx};

use crate::people::audit;
use crate::{ServiceError, Services, feed};

/// Adds a policy for incidents that open from now on.
///
/// # Errors
/// If access is refused, settings are invalid, the project has another default, the quota is used up, or the database is
/// away.
pub async fn create(
    services: &Services,
    access: &Access,
    settings: PolicySettings,
) -> Result<StoredPolicy, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let policy = Policy::read(settings).map_err(ServiceError::Invalid)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    check_targets(&mut tx, project, &policy).await?;
    if store::count(&mut tx, project).await? >= limits::PROJECT_POLICIES {
        return Err(ServiceError::Limit {
            what: "escalation policies",
            limit: limits::PROJECT_POLICIES,
        });
    }
    let new = StoredPolicy {
        id: EscalationPolicyId::generate(),
        project_id: project,
        policy,
        created_at: now,
        updated_at: now,
    };
    store::insert(&mut tx, &new).await.map_err(one_default)?;
    let subject = ChangeSubject::EscalationPolicy(new.id);
    feed::note(&mut tx, project, subject, ChangeKind::Created, now);
    let entry =
        Entry::new(access, project, Act::PolicyCreated, new.id.0, now).named(&new.policy.settings().name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    Ok(new)
}

/// Changes a policy. `change` writes into its settings, which are then checked as a whole. Incidents that escalate go on
/// with the step of the same number.
///
/// # Errors
/// If access is refused, the policy is not found, settings are invalid, the project has another default, or the database
/// is away.
pub async fn update(
    services: &Services,
    access: &Access,
    id: EscalationPolicyId,
    change: impl FnOnce(&mut PolicySettings),
) -> Result<StoredPolicy, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let stored = store::lock(&mut tx, project, id).await?;
    let mut stored = stored.ok_or(ServiceError::NotFound("escalation policy"))?;
    let mut settings = stored.policy.settings().clone();
    change(&mut settings);
    stored.policy = Policy::read(settings).map_err(ServiceError::Invalid)?;
    stored.updated_at = now;
    check_targets(&mut tx, project, &stored.policy).await?;
    store::update(&mut tx, &stored).await.map_err(one_default)?;
    let subject = ChangeSubject::EscalationPolicy(id);
    feed::note(&mut tx, project, subject, ChangeKind::Changed, now);
    let entry =
        Entry::new(access, project, Act::PolicyChanged, id.0, now).named(&stored.policy.settings().name);
    audit::note(&mut tx, entry);
    tx.commit().await?;
    Ok(stored)
}

/// Removes a policy. Its escalations end.
///
/// # Errors
/// If access is refused, the policy is not found, or the database is away.
pub async fn delete(
    services: &Services,
    access: &Access,
    id: EscalationPolicyId,
) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let mut tx = services.store.begin().await?;
    if !store::delete(&mut tx, project, id).await? {
        return Err(ServiceError::NotFound("escalation policy"));
    }
    let (subject, now) = (ChangeSubject::EscalationPolicy(id), services.now());
    feed::note(&mut tx, project, subject, ChangeKind::Deleted, now);
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::PolicyDeleted, id.0, now),
    );
    tx.commit().await?;
    Ok(())
}

fn one_default(error: StoreError) -> ServiceError {
    if error.is_constraint("escalation_policy_default") {
        return ServiceError::Conflict(
            "the project has a default policy already; a policy with `match` is for the monitors of its tags"
                .to_owned(),
        );
    }
    error.into()
}

/// Checks that the project has the targets, and keeps them from being deleted until the commit.
async fn check_targets(tx: &mut Tx, project: ProjectId, policy: &Policy) -> Result<(), ServiceError> {
    let (mut channels, mut rotations) = (Vec::new(), Vec::new());
    for (_, target) in policy.all_targets() {
        match target.kind {
            TargetKind::Channel => channels.push(ChannelId(target.id)),
            TargetKind::Rotation => rotations.push(RotationId(target.id)),
        }
    }
    let channels = hold_channels(tx, project, &channels).await?;
    let rotations = hold_rotations(tx, project, &rotations).await?;
    let faults: Vec<FieldError> = policy
        .all_targets()
        .filter_map(|(pointer, target)| {
            let (is_known, kind) = match target.kind {
                TargetKind::Channel => (channels.contains(&ChannelId(target.id)), "channel"),
                TargetKind::Rotation => (rotations.contains(&RotationId(target.id)), "rotation"),
            };
            (!is_known).then(|| {
                FieldError::new(
                    format!("{pointer}/id"),
                    format!("is {}; the project has no such {kind}", target.id),
                )
            })
        })
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::Invalid(faults))
    }
}
