//! Google Chat, by an incoming webhook of a space. The alerts of an incident are one thread, because a webhook cannot
//! change messages.
//!
//! Sources: <https://developers.google.com/workspace/chat/quickstart/webhooks>,
//! <https://developers.google.com/workspace/chat/api/reference/rest/v1/spaces.messages/create> (`requestId`, `messageReplyOption`,
//! 32,000 bytes a message), <https://developers.google.com/workspace/chat/format-messages>, and for the error
//! <https://cloud.google.com/apis/design/errors>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::Event;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_new_url, check_reach, check_url, host_of};
use super::super::markup::{Content, Markup, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::text::{fenced, swapped, unlinked};
use super::{dead, said};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "google_chat";
/// The most characters of a message. Google accepts 32,000 bytes, but clients fold messages that are longer than
/// this.
const TEXT_CHARS: usize = 4_000;
/// The status of the error if the space or the webhook does not exist.
const DEAD: &str = "NOT_FOUND";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoogleChatSettings {
    webhook_url: String,
}

/// The kind `google_chat`.
pub struct GoogleChat;

impl GoogleChat {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: GoogleChatSettings = read(settings)?;
        address("webhook_url", &settings.webhook_url).map_err(|fault| vec![fault])
    }
}

impl Kind for GoogleChat {
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
        Ok(Arc::new(GoogleChatSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct GoogleChatSender {
    outbound: Outbound,
}

impl GoogleChatSender {
    async fn attempt(&self, outgoing: &Outgoing, hook: Url) -> Result<Outcome, Outcome> {
        let story = Story::of(&outgoing.message);
        let mut body = json!({"text": render(&story, &Text, Content::All, TEXT_CHARS)});
        let mut url = hook;
        // Google makes one message of all requests with the same id.
        url.query_pairs_mut()
            .append_pair("requestId", &outgoing.id.0.to_string());
        if let Event::Incident(event) = &outgoing.message.event {
            body["thread"] = json!({"threadKey": event.incident.id.0.to_string()});
            url.query_pairs_mut()
                .append_pair("messageReplyOption", "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD");
        }
        let answer = call_json(&self.outbound, Method::POST, url.as_str(), &[], &body).await;
        let said = said(&answer);
        if said["error"]["status"] == json!(DEAD) {
            let error = said["error"]["message"].as_str().unwrap_or(DEAD);
            return Err(dead(&answer, outgoing, error));
        }
        Ok(sent(&judge(answer, outgoing, &[])?, None))
    }
}

impl Sender for GoogleChatSender {
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
                .and_then(|settings: GoogleChatSettings| Url::parse(&settings.webhook_url).ok());
            let Some(hook) = hook else {
                return misfit(NAME);
            };
            self.attempt(&outgoing, hook)
                .await
                .unwrap_or_else(|outcome| outcome)
        })
    }
}

/// Google Chat's markup. It has no escape, so look-alikes replace the characters with a meaning.
struct Text;

impl Markup for Text {
    fn escape(&self, text: &str) -> String {
        let pairs = [('*', '∗'), ('~', '∼'), ('`', 'ˋ'), ('<', '‹'), ('>', '›')];
        swapped(&unlinked(text), &pairs)
    }

    fn bold(&self, escaped: &str) -> String {
        format!("*{escaped}*")
    }

    /// Leaves out a command with `<users/`: Google does not document whether it reads mentions in code.
    fn code(&self, command: &str) -> Option<String> {
        fenced(command).filter(|_| !command.contains("<users/"))
    }

    fn link(&self, label: &str, url: &str) -> String {
        let url = url.replace('<', "%3C").replace('>', "%3E").replace('|', "%7C");
        format!("<{url}|{}>", self.escape(label).replace('|', "∣"))
    }
}

#[cfg(test)]
mod tests;
