//! Slack, by an incoming webhook or by a bot.
//!
//! A webhook can only send messages. A bot changes the message of an incident (`chat.update`) and adds later events to its thread.
//!
//! Sources: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>,
//! <https://docs.slack.dev/reference/methods/chat.postMessage>, <https://docs.slack.dev/reference/methods/chat.update>,
//! <https://docs.slack.dev/messaging/formatting-message-text>, <https://docs.slack.dev/reference/block-kit/block-elements/button-element>.

use std::sync::Arc;

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{
    call_json, check_new_url, check_proof, check_reach, check_token, check_url, host_of,
};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::all;
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::{Story, Tone};
use crate::incident::button::{ACTION, with_project};

const NAME: &str = "slack";
/// Base address of the Web API for bots.
const API: &str = "https://slack.com/api";
/// The most characters of a section's text.
const SECTION_CHARS: usize = 3_000;
/// The most characters of a headline.
const HEADLINE_CHARS: usize = 200;
/// The most characters of a reply in a thread: the headline, the summary and the links.
const REPLY_CHARS: usize = 600;
/// Permanent statuses of a webhook: 404 is `no_service` or `channel_not_found`, 410 is `channel_is_archived`.
const PERMANENT: [u16; 2] = [404, 410];

/// Settings: either `webhook_url`, or `token` and `channel`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlackSettings {
    webhook_url: Option<String>,
    token: Option<String>,
    channel: Option<String>,
    /// Proves who pressed a button (`incident/callback/slack.rs`). None: messages have no button.
    signing_secret: Option<String>,
}

/// The way in which messages get to Slack.
enum Way {
    Webhook { url: String },
    Bot { token: String, channel: String },
}

impl SlackSettings {
    fn way(self) -> Result<Way, FieldError> {
        match (self.webhook_url, self.token, self.channel) {
            (Some(url), None, None) => Ok(Way::Webhook { url }),
            (None, Some(token), Some(channel)) => Ok(Way::Bot { token, channel }),
            _ => Err(FieldError::new(
                "/settings",
                "holds neither webhook_url alone, nor token and channel; one of the two ways is allowed",
            )),
        }
    }
}

/// The kind `slack`.
pub struct Slack;

impl Slack {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: SlackSettings = read(settings)?;
        let proof = check_proof("signing_secret", settings.signing_secret.as_deref(), 200);
        match settings.way().map_err(|fault| vec![fault])? {
            Way::Webhook { url } => all([address("webhook_url", &url), proof]),
            Way::Bot { token, channel } => all([
                check_token("token", &token, 300),
                check_token("channel", &channel, 80),
                proof,
            ]),
        }
    }
}

impl Kind for Slack {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_url)
    }

    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_new_url)
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["webhook_url", "token", "signing_secret"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "webhook_url").or_else(|| Some("slack.com".to_owned()))
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(SlackSender {
            outbound: parts.outbound.clone(),
            api: API.to_owned(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct SlackSender {
    outbound: Outbound,
    api: String,
}

/// The handle of an incident's message, by which later alerts find it.
#[derive(Clone, Deserialize)]
struct Handle {
    channel: String,
    ts: String,
}

impl SlackSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<SlackSettings>() else {
            return misfit(NAME);
        };
        let (story, button) = story_of(&outgoing, settings.signing_secret.is_some());
        let message = message(&story, button.as_deref());
        let ended = match settings.way() {
            Ok(Way::Webhook { url }) => self.by_webhook(&outgoing, &url, &message).await,
            Ok(Way::Bot { token, channel }) => {
                self.by_bot(&outgoing, &token, &channel, &story, message).await
            }
            Err(_) => return misfit(NAME),
        };
        ended.unwrap_or_else(|outcome| outcome)
    }

    async fn by_webhook(&self, outgoing: &Outgoing, url: &str, message: &Value) -> Result<Outcome, Outcome> {
        let answer = call_json(&self.outbound, Method::POST, url, &[], message).await;
        Ok(sent(&judge(answer, outgoing, &PERMANENT)?, None))
    }

    async fn by_bot(
        &self,
        outgoing: &Outgoing,
        token: &str,
        channel: &str,
        story: &Story,
        message: Value,
    ) -> Result<Outcome, Outcome> {
        let handle: Option<Handle> = outgoing
            .handle
            .clone()
            .and_then(|handle| serde_json::from_value(handle).ok());
        if let Some(handle) = handle {
            let mut change = message.clone();
            change["channel"] = json!(handle.channel);
            change["ts"] = json!(handle.ts);
            match self.method(outgoing, token, "chat.update", &change).await {
                Ok(_) => {
                    let mut reply = json!({
                        "channel": handle.channel,
                        "thread_ts": handle.ts,
                        "text": render(story, &Mrkdwn, Content::All, REPLY_CHARS),
                    });
                    // A change makes no sound, so people who must still act also get a message in the room.
                    if matches!(outgoing.message.alert(), Alert::Reminder | Alert::Escalated) {
                        reply["reply_broadcast"] = json!(true);
                    }
                    self.method(outgoing, token, "chat.postMessage", &reply).await?;
                    return Ok(Outcome::Sent {
                        code: Some(200),
                        handle: outgoing.handle.clone(),
                    });
                }
                // A person deleted the message, or it is too old to change: a new one takes its place.
                Err(Fault::Gone) => {}
                Err(Fault::Ended(outcome)) => return Err(outcome),
            }
        }
        let mut new = message;
        new["channel"] = json!(channel);
        let answer = self.method(outgoing, token, "chat.postMessage", &new).await?;
        let handle = (answer["ts"].is_string() && answer["channel"].is_string())
            .then(|| json!({"channel": answer["channel"], "ts": answer["ts"]}));
        Ok(Outcome::Sent {
            code: Some(200),
            handle,
        })
    }

    /// Calls a method of the Web API. It answers 200 even if the method failed; the body then has the error.
    async fn method(
        &self,
        outgoing: &Outgoing,
        token: &str,
        method: &str,
        body: &Value,
    ) -> Result<Value, Fault> {
        let url = format!("{}/{method}", self.api);
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let answer = call_json(&self.outbound, Method::POST, &url, &headers, body).await;
        let answer = judge(answer, outgoing, &[]).map_err(Fault::Ended)?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if said["ok"] == json!(true) {
            return Ok(said);
        }
        Err(fault(
            outgoing,
            method,
            said["error"].as_str().unwrap_or("no JSON"),
        ))
    }
}

/// Why a method failed.
enum Fault {
    /// The message to change does not exist any more.
    Gone,
    /// The attempt ends with this outcome.
    Ended(Outcome),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Ended(outcome) => outcome,
            Fault::Gone => Self::Retry {
                reason: Reason::ClientError,
                code: Some(200),
                detail: "the message does not exist any more".to_owned(),
                retry_after: None,
            },
        }
    }
}

fn fault(outgoing: &Outgoing, method: &str, error: &str) -> Fault {
    let code = Some(200);
    let detail = format!("{method} answered {}", outgoing.excerpt(error, 100));
    match error {
        "message_not_found" | "cant_update_message" | "edit_window_closed" => Fault::Gone,
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            Fault::Ended(Outcome::Failed {
                reason: Reason::Auth,
                code,
                detail,
            })
        }
        "channel_not_found" | "is_archived" => Fault::Ended(Outcome::Failed {
            reason: Reason::ClientError,
            code,
            detail,
        }),
        // A person can repair the other errors in Slack, without changing this channel.
        _ => Fault::Ended(Outcome::Retry {
            reason: match error {
                "not_in_channel" | "missing_scope" | "no_permission" | "access_denied" => Reason::Auth,
                "ratelimited" | "rate_limited" => Reason::RateLimit,
                "internal_error" | "fatal_error" | "service_unavailable" => Reason::ServerError,
                _ => Reason::ClientError,
            },
            code,
            detail,
            retry_after: None,
        }),
    }
}

impl Sender for SlackSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "webhook_url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

/// Returns the story of a message, and the value of its button if it gets one. The button takes the place of the link.
fn story_of(outgoing: &Outgoing, has_proof: bool) -> (Story, Option<String>) {
    let mut story = Story::of(&outgoing.message);
    let project = outgoing.message.incident().map(|incident| incident.project.id);
    let button = outgoing
        .signed
        .button
        .as_deref()
        .zip(project)
        .filter(|_| has_proof);
    let button = button.map(|(button, project)| with_project(project, button));
    if button.is_some() {
        story.acknowledge = None;
    }
    (story, button)
}

/// Builds a message. The room and notifications show the first line. The rest is beside a bar in the colour of the
/// story. `verbatim` keeps Slack from making links and mentions of plain text.
fn message(story: &Story, button: Option<&str>) -> Value {
    let body = render(story, &Mrkdwn, Content::WithoutHeadline, SECTION_CHARS);
    let mut message = json!({
        "text": Mrkdwn.bold(&Mrkdwn.escape(&cut(&story.headline, HEADLINE_CHARS))),
        "unfurl_links": false,
        "unfurl_media": false,
        "attachments": [{
            "color": match story.tone {
                Tone::Bad => "#c2261c",
                Tone::Good => "#1a7f37",
                Tone::Plain => "#6b7280",
            },
            "fallback": cut(&story.headline, HEADLINE_CHARS),
            "blocks": [{
                "type": "section",
                "text": {"type": "mrkdwn", "text": body, "verbatim": true},
            }],
        }],
    });
    if let (Some(button), Some(blocks)) = (button, message["attachments"][0]["blocks"].as_array_mut()) {
        blocks.push(json!({
            "type": "actions",
            "elements": [{
                "type": "button",
                "action_id": ACTION,
                "text": {"type": "plain_text", "text": "Acknowledge"},
                "style": "primary",
                "value": button,
            }],
        }));
    }
    message
}

/// Slack's markup.
struct Mrkdwn;

impl Markup for Mrkdwn {
    /// Escapes `&`, `<` and `>`; Slack has no other escapes. Mentions and links need `<` and `>`. A backtick would
    /// begin code.
    fn escape(&self, text: &str) -> String {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('`', "ˋ")
    }

    fn bold(&self, escaped: &str) -> String {
        format!("*{}*", escaped.replace('*', "∗"))
    }

    fn code(&self, command: &str) -> Option<String> {
        let escaped = command
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        (!command.contains("```") && !command.starts_with('`') && !command.ends_with('`'))
            .then(|| format!("```{escaped}```"))
    }

    fn link(&self, label: &str, url: &str) -> String {
        let url = url
            .replace('&', "&amp;")
            .replace('<', "%3C")
            .replace('>', "%3E")
            .replace('|', "%7C");
        format!("<{url}|{}>", self.escape(label))
    }
}

#[cfg(test)]
mod tests;
