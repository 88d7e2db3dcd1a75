//! Sends a delivery again after it was given up or cancelled.

use deadbeat_domain::ids::DeliveryId;
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::alert::{channel, delivery};
use deadbeat_store::people::quota::Counted;

use crate::people::audit;
use crate::people::quota::spend;
use crate::{ServiceError, Services};

/// Puts a dead or cancelled delivery back into the outbox, with the same id and message. Its day of attempts begins
/// again.
///
/// # Errors
/// If access is refused, the delivery is not found, waits already or was sent, its channel cannot be used, the
/// project resent too many, or the database is away.
pub async fn resend(services: &Services, access: &Access, id: DeliveryId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let of = delivery::channel_of(&mut tx, project, id).await?;
    let of = of.ok_or(ServiceError::NotFound("delivery"))?;
    // Lock the channel before deliveries, as everywhere. A settlement that switches the channel off either waits for
    // this lock or is done.
    let channel = channel::lock(&mut tx, project, of).await?;
    let channel = channel.ok_or(ServiceError::NotFound("delivery"))?;
    if channel.disabled.is_some() {
        return Err(ServiceError::Conflict(
            "the channel is switched off; change its settings first".to_owned(),
        ));
    }
    if !channel.is_confirmed() {
        return Err(ServiceError::Conflict(
            "the owner of the mail address has not confirmed yet".to_owned(),
        ));
    }
    spend(
        &mut tx,
        &Counted::Resends(project),
        limits::PROJECT_RESENDS_A_MINUTE,
        now,
    )
    .await?;
    if !delivery::resend(&mut tx, project, id, now).await? {
        return Err(ServiceError::Conflict(
            "the delivery waits already, or it was sent; dead and cancelled ones can be sent again"
                .to_owned(),
        ));
    }
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::DeliveryResent, id.0, now),
    );
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}
