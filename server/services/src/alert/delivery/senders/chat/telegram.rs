//! Telegram, by a bot. The bot changes the message of an incident.
//!
//! Sources: <https://core.telegram.org/bots/api#making-requests>, <https://core.telegram.org/bots/api#sendmessage>,
//! <https://core.telegram.org/bots/api#editmessagetext>, <https://core.telegram.org/bots/api#html-style>,
//! <https://core.telegram.org/bots/api#responseparameters>, <https://core.telegram.org/bots/api#inlinekeyboardmarkup>. The descriptions of errors are those of the Bot API server,
//! <https://github.com/tdlib/telegram-bot-api>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit};
use super::super::http::{PROOF_CHARS, call_json};
use super::super::markup::{Content, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::room::{Fault, Room, Sent, keep_one_message};
use super::text::{Html, utf16};
use super::{NOTICE_CHARS, all, check_digits, dead, odd, said, status_of, waiting};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "telegram";
/// Base address of the Bot API.
const API: &str = "https://api.telegram.org";
/// The most units of a message. Telegram accepts 4,096 without the markup, but its answer repeats them, perhaps as
/// `\uXXXX`. Deadbeat reads 16 KiB of an answer, and these must hold the message's id.
const TEXT_UNITS: usize = 2_400;
/// Telegram counts in units of UTF-16.
const HTML: Html = Html { length: utf16 };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TelegramSettings {
    token: String,
    chat_id: String,
    topic_id: Option<String>,
    /// Proves who pressed a button (`incident/callback/telegram.rs`). None: messages have no button.
    secret_token: Option<String>,
}

/// The kind `telegram`.
pub struct Telegram;

/// Checks a token. It is a part of each request's address, so it may hold only these characters.
fn check_bot_token(token: &str) -> Result<(), FieldError> {
    let is_good = token.split_once(':').is_some_and(|(id, secret)| {
        check_digits("token", id).is_ok()
            && (1..=200).contains(&secret.len())
            && secret
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    });
    if is_good {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/token",
        "is not the token of a bot: digits, a colon, then letters, digits, - and _",
    ))
}

fn check_chat(chat: &str) -> Result<(), FieldError> {
    let is_good = match chat.strip_prefix('@') {
        Some(name) => {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }
        None => check_digits("chat_id", chat.strip_prefix('-').unwrap_or(chat)).is_ok(),
    };
    if is_good {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/chat_id",
        "is neither the number of a chat, such as \"-1001234567890\", nor the @name of a public channel",
    ))
}

fn check_topic(topic: &str) -> Result<(), FieldError> {
    // Telegram reads the topic as a number.
    if topic.parse::<i64>().is_ok() {
        return check_digits("topic_id", topic);
    }
    Err(FieldError::new(
        "/settings/topic_id",
        "is not the number of a topic",
    ))
}

/// Telegram's own rule for the token of a webhook, and long enough that nobody guesses it.
fn check_secret_token(token: &str) -> Result<(), FieldError> {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if (PROOF_CHARS..=256).contains(&token.len()) && token.bytes().all(is_letter) {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/secret_token",
        format!("is not {PROOF_CHARS} to 256 letters, digits, - and _"),
    ))
}

impl Kind for Telegram {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: TelegramSettings = read(settings)?;
        all([
            check_bot_token(&settings.token),
            check_chat(&settings.chat_id),
            settings.topic_id.as_deref().map_or(Ok(()), check_topic),
            settings
                .secret_token
                .as_deref()
                .map_or(Ok(()), check_secret_token),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token", "secret_token"]
    }

    fn host(&self, _settings: &Settings) -> Option<String> {
        Some("api.telegram.org".to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(TelegramSender {
            outbound: parts.outbound.clone(),
            api: API.to_owned(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct TelegramSender {
    outbound: Outbound,
    api: String,
}

impl Sender for TelegramSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Ok(settings) = outgoing.settings.read::<TelegramSettings>() else {
                return misfit(NAME);
            };
            let mut story = Story::of(&outgoing.message);
            let button = outgoing.signed.button.clone();
            let button = button.filter(|_| settings.secret_token.is_some());
            if button.is_some() {
                story.acknowledge = None;
            }
            let chat = Chat {
                outbound: &self.outbound,
                api: &self.api,
                outgoing: &outgoing,
                story,
                button,
                settings,
            };
            keep_one_message(&chat, &outgoing).await
        })
    }
}

/// A chat, with the alert to send there.
struct Chat<'a> {
    outbound: &'a Outbound,
    api: &'a str,
    outgoing: &'a Outgoing,
    story: Story,
    /// The value of the button that acknowledges, which takes the place of the link.
    button: Option<String>,
    settings: TelegramSettings,
}

impl Chat<'_> {
    /// Builds a message with this text.
    fn body(&self, content: &str) -> Value {
        let mut body = json!({
            "chat_id": self.settings.chat_id,
            "text": content,
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": true},
        });
        if let Some(Ok(topic)) = self.settings.topic_id.as_deref().map(str::parse::<i64>) {
            body["message_thread_id"] = json!(topic);
        }
        body
    }

    /// The message of the incident. A change without a keyboard takes the button away.
    fn whole(&self) -> Value {
        let mut body = self.body(&render(&self.story, &HTML, Content::All, TEXT_UNITS));
        if let Some(button) = &self.button {
            body["reply_markup"] =
                json!({"inline_keyboard": [[{"text": "Acknowledge", "callback_data": button}]]});
        }
        body
    }

    /// Calls a method. If the group became a supergroup, it has another id. The answer names this id, and a second
    /// call uses it.
    async fn method(&self, method: &str, mut body: Value) -> Result<Sent, Fault> {
        let url = format!("{}/bot{}/{method}", self.api, self.settings.token);
        let mut answer = call_json(self.outbound, Method::POST, &url, &[], &body).await;
        if let Some(moved) = said(&answer)["parameters"]["migrate_to_chat_id"].as_i64() {
            body["chat_id"] = json!(moved);
            answer = call_json(self.outbound, Method::POST, &url, &[], &body).await;
        }
        let said = said(&answer);
        if let (Some(status @ 400..=499), Some(description)) =
            (status_of(&answer), said["description"].as_str())
        {
            let known = description.to_ascii_lowercase();
            let says = |parts: &[&str]| parts.iter().any(|part| known.contains(part));
            if says(&["message is not modified"]) {
                return Ok(Sent {
                    status,
                    message: None,
                });
            }
            if says(&[
                "message to edit not found",
                "message can't be edited",
                "message_id_invalid",
            ]) {
                return Err(Fault::Gone);
            }
            // 401: the token was revoked. 404: there is no such bot.
            if matches!(status, 401 | 404) || says(&["chat not found", "user is deactivated"]) {
                return Err(dead(&answer, self.outgoing, description).into());
            }
        }
        let seconds = said["parameters"]["retry_after"].as_i64();
        let asked = seconds.map(|seconds| seconds.saturating_mul(1_000));
        let answer = judge(answer, self.outgoing, &[]).map_err(|outcome| waiting(outcome, asked))?;
        if said["ok"] != json!(true) {
            return Err(odd(&answer, self.outgoing).into());
        }
        let id = said["result"]["message_id"].as_i64();
        Ok(Sent {
            status: answer.status,
            message: id.map(|id| {
                json!({"chat": self.settings.chat_id, "topic": self.settings.topic_id, "message_id": id})
            }),
        })
    }
}

impl Room for Chat<'_> {
    fn send(&self) -> BoxFuture<'_, Result<Sent, Outcome>> {
        Box::pin(async move {
            self.method("sendMessage", self.whole())
                .await
                .map_err(Fault::into_outcome)
        })
    }

    fn change<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Fault>> {
        Box::pin(async move {
            // The channel's settings may name another chat by now.
            if earlier["chat"] != json!(self.settings.chat_id)
                || earlier["topic"] != json!(self.settings.topic_id)
            {
                return Err(Fault::Gone);
            }
            let mut body = self.whole();
            if let Some(fields) = body.as_object_mut() {
                fields.remove("message_thread_id");
            }
            body["message_id"] = earlier["message_id"].clone();
            self.method("editMessageText", body).await
        })
    }

    fn add<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Outcome>> {
        Box::pin(async move {
            let mut body = self.body(&render(&self.story, &HTML, Content::All, NOTICE_CHARS));
            body["reply_parameters"] = json!({
                "message_id": earlier["message_id"],
                "allow_sending_without_reply": true,
            });
            self.method("sendMessage", body)
                .await
                .map_err(Fault::into_outcome)
        })
    }
}

#[cfg(test)]
mod tests;
