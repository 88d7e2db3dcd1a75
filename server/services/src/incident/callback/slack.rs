//! A button in a message of Slack was pressed.
//!
//! An app of Slack has one address for all of its buttons, so the request itself names the project and the channel: in the button's value, which
//! this server signed. The app's signing secret, a setting of that channel, then proves the request and who pressed.
//!
//! Sources: <https://docs.slack.dev/authentication/verifying-requests-from-slack>,
//! <https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{CallbackError, Place, acknowledge, is_signed, proving};
use crate::Services;
use crate::incident::button::{ACTION, Button};

/// A request may be this old, or from a clock this much ahead. Slack's own advice.
const WINDOW_SECONDS: i64 = 300;

/// What proves a request.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    /// `X-Slack-Request-Timestamp`: seconds since 1970.
    pub timestamp: &'a str,
    /// `X-Slack-Signature`: `v0=` and 64 digits.
    pub signature: &'a str,
}

/// The part of an interaction that matters here.
#[derive(Deserialize)]
struct Interaction {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Default, Deserialize)]
struct User {
    name: Option<String>,
    username: Option<String>,
}

#[derive(Deserialize)]
struct Action {
    action_id: Option<String>,
    value: Option<String>,
}

/// Acknowledges the incident whose button was pressed.
///
/// # Errors
/// The request is not proved, or the database is away.
pub async fn pressed(services: &Services, headers: Headers<'_>, body: &[u8]) -> Result<(), CallbackError> {
    let (button, name) = read(services, body).ok_or(CallbackError::Unproved)?;
    if !is_recent(headers.timestamp, services.now()) {
        return Err(CallbackError::Unproved);
    }
    let place = Place {
        project: button.project,
        channel: button.channel,
    };
    let proving = proving(services, place, "slack", "signing_secret").await?;
    let signature = headers.signature.strip_prefix("v0=").unwrap_or_default();
    let parts: [&[u8]; 4] = [b"v0:", headers.timestamp.as_bytes(), b":", body];
    if !is_signed(&proving.secret, &parts, signature) {
        return Err(CallbackError::Unproved);
    }
    // Slack asks for an answer without content. Who pressed sees the changed message, or the one that says who has it.
    acknowledge(services, button.project, button.incident, &name, "Slack").await?;
    Ok(())
}

/// Finds a button of this server in a form with the field `payload`, and who pressed it.
fn read(services: &Services, body: &[u8]) -> Option<(Button, String)> {
    let (_, payload) = url::form_urlencoded::parse(body).find(|(name, _)| name == "payload")?;
    let interaction: Interaction = serde_json::from_str(&payload).ok()?;
    if interaction.kind != "block_actions" {
        return None;
    }
    let action = interaction
        .actions
        .into_iter()
        .find(|action| action.action_id.as_deref() == Some(ACTION))?;
    let button = Button::read_with_project(&action.value?, &services.keyring)?;
    let User { name, username } = interaction.user;
    Some((button, name.or(username).unwrap_or_default()))
}

/// Whether a timestamp is within the window, so that nobody can send an old request again.
fn is_recent(timestamp: &str, now: DateTime<Utc>) -> bool {
    let is_digits = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
    is_digits
        && timestamp
            .parse::<i64>()
            .is_ok_and(|at| (now.timestamp() - at).abs() <= WINDOW_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_for_five_minutes() {
        let now = DateTime::from_timestamp(1_531_420_618, 0).unwrap();
        for (timestamp, is_taken) in [
            ("1531420618", true),
            ("1531420318", true),
            ("1531420317", false),
            ("1531420918", true),
            ("1531420919", false),
            ("", false),
            ("+1531420618", false),
            ("-1", false),
            ("99999999999999999999", false),
            ("1531420618 ", false),
        ] {
            assert_eq!(is_recent(timestamp, now), is_taken, "{timestamp:?}");
        }
    }
}
