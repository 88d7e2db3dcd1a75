//! The rule of services that can change a message: one incident, one message.
//!
//! The first alert of an incident sends a message. Each later alert changes it. A change makes no sound, so a
//! reminder and an escalation also add a short message. The end of the incident also adds one if the room has such a
//! short message. Otherwise the last message in the room would say that the fault goes on.

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Outgoing;

/// A room of a service, with the alert to send there.
pub(super) trait Room: Send + Sync {
    /// Sends the message.
    fn send(&self) -> BoxFuture<'_, Result<Sent, Outcome>>;
    /// Replaces an earlier message with the message.
    fn change<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Fault>>;
    /// Sends a short message that refers to the earlier message.
    fn add<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Outcome>>;
}

/// The service accepted a message.
pub(super) struct Sent {
    /// The HTTP status.
    pub(super) status: u16,
    /// The handle by which later alerts find the message. None: the answer does not name it.
    pub(super) message: Option<Value>,
}

/// Why a message could not be changed.
pub(super) enum Fault {
    /// The message is gone, belongs to another room, or cannot be changed any more.
    Gone,
    /// The attempt ends with this outcome.
    Ended(Outcome),
}

impl Fault {
    /// The outcome of a call that changes no message. [`Fault::Gone`] then means a wrong answer of the service.
    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Ended(outcome) => outcome,
            Self::Gone => Outcome::Retry {
                reason: Reason::ClientError,
                code: None,
                detail: "the service answered that a message is unknown, but the request named no message"
                    .to_owned(),
                retry_after: None,
            },
        }
    }
}

impl From<Outcome> for Fault {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(outcome)
    }
}

/// The handle of an incident's message.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Handle {
    /// The message's id at the service.
    message: Value,
    /// A short message was added.
    has_more: bool,
}

/// Makes one attempt by the rule of this module.
pub(super) async fn keep_one_message(room: &dyn Room, outgoing: &Outgoing) -> Outcome {
    attempt(room, outgoing).await.unwrap_or_else(|outcome| outcome)
}

async fn attempt(room: &dyn Room, outgoing: &Outgoing) -> Result<Outcome, Outcome> {
    let handle: Option<Handle> = outgoing
        .handle
        .clone()
        .and_then(|handle| serde_json::from_value(handle).ok());
    if let Some(mut handle) = handle {
        match room.change(&handle.message).await {
            Ok(changed) => {
                if is_broadcast(outgoing.message.alert(), handle.has_more) {
                    room.add(&handle.message).await?;
                    handle.has_more = true;
                }
                return Ok(Outcome::Sent {
                    code: Some(changed.status.into()),
                    handle: Some(json!(handle)),
                });
            }
            // A new message takes its place.
            Err(Fault::Gone) => {}
            Err(Fault::Ended(outcome)) => return Err(outcome),
        }
    }
    let sent = room.send().await?;
    let handle = sent.message.map(|message| {
        json!(Handle {
            message,
            has_more: false
        })
    });
    Ok(Outcome::Sent {
        code: Some(sent.status.into()),
        handle,
    })
}

/// True if an alert that changed a message also adds a short message.
fn is_broadcast(alert: Alert, has_more: bool) -> bool {
    match alert {
        Alert::Reminder | Alert::Escalated => true,
        Alert::Resolved => has_more,
        _ => false,
    }
}
