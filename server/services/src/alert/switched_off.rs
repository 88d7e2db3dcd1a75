//! A channel that is switched off: its pending deliveries are cancelled, and the other channels of the project get a notice.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::message::{self, DisabledChannel, Event, Message};
use deadbeat_domain::alert::recipients::Topic;
use deadbeat_store::alert::channel::{self, Channel};
use deadbeat_store::{StoreResult, Tx};

use crate::alert::outbox;

/// Why a channel was switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It failed in a way that trying again does not repair.
    Failed,
    /// The owner of its mail address unsubscribed.
    Unsubscribed,
}

/// Notifies a project's other channels that one was switched off. Returns the number of new deliveries. The caller
/// holds the project's lock, so that a project writes one such notice at a time.
pub(crate) async fn alert_others(
    tx: &mut Tx,
    channel: &Channel,
    reason: &str,
    why: Why,
    now: DateTime<Utc>,
) -> StoreResult<usize> {
    let id = channel.project_id;
    let projects = deadbeat_store::people::project::for_alerts(tx, &[id]).await?;
    let notice = message::ChannelDisabled {
        channel: DisabledChannel {
            id: channel.id,
            name: channel.name.clone(),
            kind: channel.settings.kind().to_owned(),
        },
        reason: reason.to_owned(),
        unsubscribed: why == Why::Unsubscribed,
        project: message::Project {
            id,
            name: projects
                .get(&id)
                .map(|project| project.name.clone())
                .unwrap_or_default(),
        },
    };
    let message = Message {
        at: now,
        event: Event::ChannelDisabled(notice),
    };
    let announced = outbox::announce(tx, vec![(id, Topic::Channel(channel.id), message)], now).await?;
    if announced.recipients > 0 {
        channel::note_reported(tx, id, channel.id, now).await?;
    }
    Ok(announced.made.len())
}
