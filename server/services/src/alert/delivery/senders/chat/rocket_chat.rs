//! Rocket.Chat, by an incoming webhook. Each alert is a message, because the webhook returns no id.
//!
//! Sources: <https://docs.rocket.chat/docs/integrations>, <https://docs.rocket.chat/docs/message-formatting>. The payload and the error are
//! those of the server, <https://github.com/RocketChat/Rocket.Chat/blob/develop/apps/meteor/app/integrations/server/api/api.ts>, and the
//! markup is that of <https://github.com/RocketChat/Rocket.Chat/tree/develop/packages/message-parser>.

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
use super::text::{fenced, markdown_link, swapped, unlinked};
use super::{HEADLINE_CHARS, dead, hex_color, odd, said};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "rocket_chat";
/// The most characters of the body. A server accepts 5,000 in a message, unless its administrator changes
/// `Message_MaxAllowedSize`.
const BODY_CHARS: usize = 3_500;
/// The webhook was deleted, or its token was replaced. The status depends on the version of the server.
const DEAD: &str = "Invalid integration id or token provided";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RocketChatSettings {
    webhook_url: String,
}

/// The kind `rocket_chat`.
pub struct RocketChat;

impl RocketChat {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: RocketChatSettings = read(settings)?;
        address("webhook_url", &settings.webhook_url).map_err(|fault| vec![fault])
    }
}

impl Kind for RocketChat {
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
        Ok(Arc::new(RocketChatSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct RocketChatSender {
    outbound: Outbound,
}

impl RocketChatSender {
    async fn attempt(&self, outgoing: &Outgoing, url: &str) -> Result<Outcome, Outcome> {
        let body = message(&Story::of(&outgoing.message));
        let answer = call_json(&self.outbound, Method::POST, url, &[], &body).await;
        let said = said(&answer);
        let error = said["error"].as_str().unwrap_or_default();
        if error.contains(DEAD) {
            return Err(dead(&answer, outgoing, error));
        }
        let answer = judge(answer, outgoing, &[])?;
        // A script of the webhook can answer a success and still refuse the message. An empty answer means that it
        // accepts.
        if said["success"] == json!(false) {
            return Err(odd(&answer, outgoing));
        }
        Ok(sent(&answer, None))
    }
}

impl Sender for RocketChatSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "webhook_url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Ok(settings) = outgoing.settings.read::<RocketChatSettings>() else {
                return misfit(NAME);
            };
            self.attempt(&outgoing, &settings.webhook_url)
                .await
                .unwrap_or_else(|outcome| outcome)
        })
    }
}

/// Builds a message. Its text is the first line, which notifications show. The rest is beside a bar in the colour of
/// the story.
fn message(story: &Story) -> Value {
    let headline = Markdown.escape(&cut(&story.headline, HEADLINE_CHARS));
    json!({
        "text": Markdown.bold(&headline),
        "attachments": [{
            "color": hex_color(story.tone),
            "text": render(story, &Markdown, Content::WithoutHeadline, BODY_CHARS),
        }],
    })
}

/// Rocket.Chat's Markdown. It has no escape for mentions, channels and links, so look-alikes replace their
/// characters.
struct Markdown;

impl Markup for Markdown {
    fn escape(&self, text: &str) -> String {
        let pairs = [
            ('@', '＠'),
            ('#', '＃'),
            ('*', '∗'),
            ('~', '∼'),
            ('`', 'ˋ'),
            ('<', '‹'),
            ('>', '›'),
        ];
        swapped(&unlinked(text), &pairs).replace("](", "] (")
    }

    fn bold(&self, escaped: &str) -> String {
        format!("*{escaped}*")
    }

    /// Leaves out a command in which `@` follows a space: servers find mentions even in code.
    fn code(&self, command: &str) -> Option<String> {
        let is_quiet = !command.starts_with('@') && !command.contains(" @");
        fenced(command).filter(|_| is_quiet)
    }

    fn link(&self, label: &str, url: &str) -> String {
        markdown_link(&self.escape(label), url)
    }
}

#[cfg(test)]
mod tests;
