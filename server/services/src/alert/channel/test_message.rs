//! The test of a channel: a message that its sender delivers like an alert.

use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::alert::recipients::Topic;
use deadbeat_domain::ids::{ChannelId, DeliveryId};
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::audit::{Act, Entry};
use deadbeat_domain::people::permission::Action;
use deadbeat_store::people::quota::Counted;

use crate::alert::outbox;
use crate::people::audit;
use crate::people::quota::spend;
use crate::{ServiceError, Services};

/// Puts a test into the outbox, which delivers it like an alert.
///
/// # Errors
/// If access is refused, the channel is not found or not confirmed, the project sent too many tests, or the database
/// is away.
pub async fn send_test(
    services: &Services,
    access: &Access,
    id: ChannelId,
) -> Result<DeliveryId, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let now = services.now();
    let mut tx = services.store.begin().await?;
    let channel = deadbeat_store::alert::channel::lock(&mut tx, project, id).await?;
    if !channel.ok_or(ServiceError::NotFound("channel"))?.is_confirmed() {
        return Err(ServiceError::Conflict(
            "the owner of the mail address has not confirmed yet; POST …/confirmation sends the mail again"
                .to_owned(),
        ));
    }
    let tests = Counted::Tests(project);
    spend(&mut tx, &tests, limits::PROJECT_TESTS_A_MINUTE, now).await?;
    let message = Message {
        at: now,
        event: Event::Test,
    };
    let announced = outbox::announce(&mut tx, vec![(project, Topic::Channel(id), message)], now).await?;
    audit::note(
        &mut tx,
        Entry::new(access, project, Act::ChannelTested, id.0, now),
    );
    tx.commit().await?;
    services.outbox_bell.notify_one();
    announced.made.first().copied().ok_or(ServiceError::Busy)
}
