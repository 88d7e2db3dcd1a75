//! Discord, by a webhook of a channel. The webhook changes the message of an incident.
//!
//! Sources: <https://discord.com/developers/docs/resources/webhook#execute-webhook>,
//! <https://discord.com/developers/docs/resources/webhook#edit-webhook-message>,
//! <https://discord.com/developers/docs/resources/message#embed-object-embed-limits>,
//! <https://discord.com/developers/docs/topics/opcodes-and-status-codes#json>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::super::answer::{judge, misfit};
use super::super::http::{call_json, check_new_url, check_reach, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::room::{Fault, Room, Sent, keep_one_message};
use super::text::{backslashed, fenced, markdown_link, utf16};
use super::{HEADLINE_CHARS, NOTICE_CHARS, all, check_digits, color, dead, said, status_of};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "discord";
/// The most characters of the body. Discord accepts 4,096, but its answer repeats them, perhaps as `\uXXXX`. Deadbeat
/// reads 16 KiB of an answer, and these must hold the message's id.
const BODY_CHARS: usize = 2_300;
/// The flag `SUPPRESS_EMBEDS`: a link gets no preview.
const NO_PREVIEW: u32 = 4;
/// `Unknown Channel`, `Unknown Webhook` and `Invalid Webhook Token`: the webhook or its thread was deleted.
const DEAD: [i64; 3] = [10_003, 10_015, 50_027];
/// `Unknown Message`, `Maximum number of edits to messages older than 1 hour reached` and `Cannot edit a message authored by another user`.
const GONE: [i64; 3] = [10_008, 30_046, 50_005];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscordSettings {
    webhook_url: String,
    thread_id: Option<String>,
}

/// The kind `discord`.
pub struct Discord;

impl Discord {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: DiscordSettings = read(settings)?;
        all([
            address("webhook_url", &settings.webhook_url).and_then(|()| check_form(&settings.webhook_url)),
            settings
                .thread_id
                .map_or(Ok(()), |id| check_digits("thread_id", &id)),
        ])
    }
}

/// Refuses the addresses that Discord shows for messages in the forms of Slack and GitHub.
fn check_form(url: &str) -> Result<(), FieldError> {
    let is_plain =
        Url::parse(url).is_ok_and(|url| !["/slack", "/github"].iter().any(|end| url.path().ends_with(end)));
    if is_plain {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/webhook_url",
        "is not the webhook's own address: enter it without /slack and /github",
    ))
}

impl Kind for Discord {
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
        &["webhook_url"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "webhook_url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(DiscordSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct DiscordSender {
    outbound: Outbound,
}

impl Sender for DiscordSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "webhook_url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let hook = outgoing
                .settings
                .read()
                .ok()
                .and_then(|settings: DiscordSettings| hook(&settings));
            let Some(hook) = hook else {
                return misfit(NAME);
            };
            let room = Hook {
                outbound: &self.outbound,
                outgoing: &outgoing,
                story: Story::of(&outgoing.message),
                hook,
            };
            keep_one_message(&room, &outgoing).await
        })
    }
}

/// Returns the webhook's address. With `wait`, Discord answers after it has stored the message, and returns the
/// message's id.
fn hook(settings: &DiscordSettings) -> Option<Url> {
    let mut url = Url::parse(&settings.webhook_url).ok()?;
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != "wait" && (name != "thread_id" || settings.thread_id.is_none()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(kept)
        .append_pair("wait", "true");
    if let Some(thread) = &settings.thread_id {
        url.query_pairs_mut().append_pair("thread_id", thread);
    }
    Some(url)
}

/// A webhook, with the alert to send there.
struct Hook<'a> {
    outbound: &'a Outbound,
    outgoing: &'a Outgoing,
    story: Story,
    hook: Url,
}

impl Hook<'_> {
    async fn call(&self, method: Method, url: &Url, body: &Value) -> Result<Sent, Fault> {
        let answer = call_json(self.outbound, method, url.as_str(), &[], body).await;
        let said = said(&answer);
        if let (Some(400..=499), Some(code)) = (status_of(&answer), said["code"].as_i64()) {
            if GONE.contains(&code) {
                return Err(Fault::Gone);
            }
            if DEAD.contains(&code) {
                let error = format!("{code} {}", said["message"].as_str().unwrap_or_default());
                return Err(dead(&answer, self.outgoing, &error).into());
            }
        }
        let answer = judge(answer, self.outgoing, &[])?;
        let id = said["id"].as_str().filter(|id| check_digits("id", id).is_ok());
        Ok(Sent {
            status: answer.status,
            message: id.map(|id| json!({"id": id})),
        })
    }

    async fn post(&self, body: &Value) -> Result<Sent, Outcome> {
        self.call(Method::POST, &self.hook, body)
            .await
            .map_err(Fault::into_outcome)
    }
}

impl Room for Hook<'_> {
    fn send(&self) -> BoxFuture<'_, Result<Sent, Outcome>> {
        Box::pin(async move { self.post(&message(&self.story)).await })
    }

    fn change<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Fault>> {
        Box::pin(async move {
            let mut url = self.hook.clone();
            let Some(id) = earlier["id"].as_str() else {
                return Err(Fault::Gone);
            };
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().extend(["messages", id]);
            }
            self.call(Method::PATCH, &url, &message(&self.story)).await
        })
    }

    fn add<'a>(&'a self, _earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Outcome>> {
        Box::pin(async move {
            let body = json!({
                "content": render(&self.story, &Markdown, Content::All, NOTICE_CHARS),
                "flags": NO_PREVIEW,
                "allowed_mentions": {"parse": []},
            });
            self.post(&body).await
        })
    }
}

/// Builds a message. Its text is the first line, which notifications show. The rest is beside a bar in the colour of
/// the story.
fn message(story: &Story) -> Value {
    json!({
        "content": Markdown.bold(&Markdown.escape(&cut(&story.headline, HEADLINE_CHARS))),
        "embeds": [{
            "description": render(story, &Markdown, Content::WithoutHeadline, BODY_CHARS),
            "color": color(story.tone),
        }],
        "allowed_mentions": {"parse": []},
    })
}

/// Discord's Markdown. A backslash escapes any ASCII punctuation; between `:` and `//` it also prevents a link.
struct Markdown;

impl Markup for Markdown {
    fn escape(&self, text: &str) -> String {
        backslashed(text, "\\*_~`|<>[]()#@").replace("://", "\\://")
    }

    fn bold(&self, escaped: &str) -> String {
        format!("**{escaped}**")
    }

    fn code(&self, command: &str) -> Option<String> {
        fenced(command)
    }

    fn link(&self, label: &str, url: &str) -> String {
        markdown_link(&self.escape(label), url)
    }

    /// Counts units of UTF-16: Discord does not define a character, and no other count is higher.
    fn length(&self, text: &str) -> usize {
        utf16(text)
    }
}

#[cfg(test)]
mod tests;
