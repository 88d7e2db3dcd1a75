//! Mattermost, by an incoming webhook. Each alert is a message, because the webhook returns no id.
//!
//! Sources: <https://docs.mattermost.com/developers/integrate/webhooks/incoming>,
//! <https://docs.mattermost.com/developers/integrate/reference/message-attachments>,
//! <https://docs.mattermost.com/end-user-guide/collaborate/format-messages.html>. The error is that of the server,
//! <https://github.com/mattermost/mattermost/blob/master/server/channels/app/webhook.go>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_new_url, check_reach, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::text::{backslashed, fenced, markdown_link, swapped, unlinked};
use super::{HEADLINE_CHARS, dead, hex_color, said};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "mattermost";
/// The most characters of the body. A server on an old database accepts 4,000 in a post. Newer ones accept 16,383,
/// and split longer posts.
const BODY_CHARS: usize = 3_500;
/// The webhook was deleted.
const DEAD: &str = "web.incoming_webhook.invalid.app_error";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MattermostSettings {
    webhook_url: String,
}

/// The kind `mattermost`.
pub struct Mattermost;

impl Mattermost {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: MattermostSettings = read(settings)?;
        address("webhook_url", &settings.webhook_url).map_err(|fault| vec![fault])
    }
}

impl Kind for Mattermost {
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
        Ok(Arc::new(MattermostSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct MattermostSender {
    outbound: Outbound,
}

impl MattermostSender {
    async fn attempt(&self, outgoing: &Outgoing, url: &str) -> Result<Outcome, Outcome> {
        let body = message(&Story::of(&outgoing.message));
        let answer = call_json(&self.outbound, Method::POST, url, &[], &body).await;
        if said(&answer)["id"] == json!(DEAD) {
            return Err(dead(&answer, outgoing, DEAD));
        }
        Ok(sent(&judge(answer, outgoing, &[])?, None))
    }
}

impl Sender for MattermostSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "webhook_url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Ok(settings) = outgoing.settings.read::<MattermostSettings>() else {
                return misfit(NAME);
            };
            self.attempt(&outgoing, &settings.webhook_url)
                .await
                .unwrap_or_else(|outcome| outcome)
        })
    }
}

/// Builds a message. Its text is the first line, which notifications show. The rest is beside a bar in the colour of
/// the story. Clients show the fallback without rendering it.
fn message(story: &Story) -> Value {
    let headline = cut(&story.headline, HEADLINE_CHARS);
    json!({
        "text": Markdown.bold(&Markdown.escape(&headline)),
        "attachments": [{
            "fallback": quiet(&headline),
            "color": hex_color(story.tone),
            "text": render(story, &Markdown, Content::WithoutHeadline, BODY_CHARS),
        }],
    })
}

/// Returns the text without mentions `@name`, links to channels `~name`, and addresses: Mattermost has no escape for
/// them.
fn quiet(text: &str) -> String {
    swapped(&unlinked(text), &[('@', '＠'), ('~', '∼')])
}

/// Mattermost's Markdown.
struct Markdown;

impl Markup for Markdown {
    fn escape(&self, text: &str) -> String {
        backslashed(&quiet(text), "\\*_`[]()#!|>")
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
}

#[cfg(test)]
mod tests;
