//! Sends a delivery again that was given up or cancelled.

use deadbeat_domain::ids::DeliveryId;
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::alert::{channel, delivery};
use deadbeat_store::people::quota::Counted;

use crate::people::quota::spend;
use crate::{ServiceError, Services};

/// Makes a dead or cancelled delivery wait again, under the same id and with the same message. Its day of attempts begins anew.
///
/// # Errors
/// Refused, not found, it waits or was sent, its channel cannot be used, too many of this project, or the database is away.
pub async fn resend(services: &Services, access: &Access, id: DeliveryId) -> Result<(), ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let of = delivery::channel_of(&mut tx, project, id).await?;
    let of = of.ok_or(ServiceError::NotFound("delivery"))?;
    // Channel before deliveries, as everywhere: a settlement that switches the channel off waits, or is over.
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
    tx.commit().await?;
    services.outbox_bell.notify_one();
    Ok(())
}
