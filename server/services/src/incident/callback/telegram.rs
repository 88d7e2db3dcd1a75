//! A button in a message of Telegram was pressed.
//!
//! Telegram repeats in each request the `secret_token` that was given when the bot's webhook was set. A changed client may send any value of a button,
//! so the value is signed as well ([`Button`]).
//!
//! Sources: <https://core.telegram.org/bots/api#setwebhook>, <https://core.telegram.org/bots/api#callbackquery>,
//! <https://core.telegram.org/bots/api#answercallbackquery>, <https://core.telegram.org/bots/api#making-requests-when-getting-updates>.

use deadbeat_store::alert::channel;
use serde::Deserialize;

use super::{CallbackError, Place, acknowledge, is_token, proving};
use crate::Services;
use crate::alert::delivery::senders::printable;
use crate::incident::button::Button;

/// The kind of the channels.
const KIND: &str = "telegram";
/// The most characters of what the presser is shown.
const TEXT_CHARS: usize = 200;

#[derive(Deserialize)]
struct Update {
    callback_query: Option<Query>,
}

#[derive(Deserialize)]
struct Query {
    id: String,
    from: User,
    data: Option<String>,
}

#[derive(Deserialize)]
struct User {
    first_name: Option<String>,
    last_name: Option<String>,
    username: Option<String>,
}

impl User {
    fn name(&self) -> String {
        let names = [self.first_name.as_deref(), self.last_name.as_deref()];
        let name = names.into_iter().flatten().collect::<Vec<_>>().join(" ");
        match (name.trim(), self.username.as_deref().unwrap_or_default()) {
            (name, "") => name.to_owned(),
            ("", username) => format!("@{username}"),
            (name, username) => format!("{name} (@{username})"),
        }
    }
}

/// What Telegram is to tell whoever pressed, so that the button stops waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The press.
    pub query: String,
    /// For the presser.
    pub text: String,
}

/// Acknowledges the incident whose button was pressed. None: the update is about something else.
///
/// # Errors
/// The request is not proved, its body cannot be read, or the database is away.
pub async fn updated(
    services: &Services,
    place: Place,
    token: &str,
    body: &[u8],
) -> Result<Option<Said>, CallbackError> {
    let proving = proving(services, place, KIND, "secret_token").await?;
    if !is_token(&proving.secret, token) {
        return Err(CallbackError::Unproved);
    }
    let update: Update = serde_json::from_slice(body).map_err(|_| CallbackError::Unreadable)?;
    let Some(query) = update.callback_query else {
        return Ok(None);
    };
    let data = query.data.as_deref().unwrap_or_default();
    let done = match Button::read(place.project, data, &services.keyring) {
        Some(button) if is_there(services, &button, place).await? => {
            let name = query.from.name();
            acknowledge(services, place.project, button.incident, &name, "Telegram").await?
        }
        _ => None,
    };
    let text = match done {
        None => "There is nothing to acknowledge.".to_owned(),
        Some(incident) if incident.resolved_at.is_some() => "It is over already.".to_owned(),
        Some(incident) => match incident.acknowledged_by {
            Some(by) => format!("Acknowledged by {by}."),
            None => "Acknowledged.".to_owned(),
        },
    };
    Ok(Some(Said {
        query: query.id,
        text: printable(&text, TEXT_CHARS),
    }))
}

/// Whether the channel that shows the button still exists. One bot has one webhook, and may write to several channels of the project.
async fn is_there(services: &Services, button: &Button, place: Place) -> Result<bool, CallbackError> {
    if button.channel == place.channel {
        return Ok(true);
    }
    let found = channel::get(&services.reader(), place.project, button.channel).await?;
    Ok(found.is_some_and(|channel| channel.settings.kind() == KIND))
}
