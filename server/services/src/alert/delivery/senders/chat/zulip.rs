//! Zulip, by a bot. The bot changes the message of an incident, as long as the organization allows it.
//!
//! Sources: <https://zulip.com/api/send-message>, <https://zulip.com/api/update-message>, <https://zulip.com/api/rest-error-handling>,
//! <https://zulip.com/api/http-headers>, <https://zulip.com/help/format-your-message-using-markdown>.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadbeat_domain::alert::channel::{Settings, is_email};
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::text::Text;
use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::answer::{judge, misfit};
use super::super::http::{check_new_url, check_reach, check_token, check_url, host_of};
use super::super::markup::{Content, Markup, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::room::{Fault, Room, Sent, keep_one_message};
use super::text::{fenced, markdown_link, swapped, unlinked};
use super::{NOTICE_CHARS, all, below, check_base, dead, odd, said, status_of};
use crate::alert::delivery::outbound::{Call, Outbound};
use crate::alert::delivery::story::Story;

const NAME: &str = "zulip";
/// The most characters of a message: the limit of servers, `max_message_length`, in code points.
const CONTENT_CHARS: usize = 10_000;
/// The most characters of the name of a channel, and of a topic.
const NAME_CHARS: usize = 60;
/// The topic if the settings name none.
const TOPIC: &str = "Deadbeat";
/// The key is wrong, the bot or the organization was deactivated, or the channel does not exist.
const DEAD: [&str; 4] = [
    "INVALID_API_KEY",
    "USER_DEACTIVATED",
    "REALM_DEACTIVATED",
    "STREAM_DOES_NOT_EXIST",
];

/// Settings: either `stream`, perhaps with `topic`, or `to`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZulipSettings {
    url: String,
    email: String,
    api_key: String,
    stream: Option<String>,
    topic: Option<String>,
    to: Option<String>,
}

/// The kind `zulip`.
pub struct Zulip;

impl Zulip {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: ZulipSettings = read(settings)?;
        let name = |field: &str, name: Option<&str>| {
            name.map_or(Ok(()), |name| {
                Text::name(name, NAME_CHARS)
                    .map(drop)
                    .map_err(|error| FieldError::of_text(&format!("/settings/{field}"), &error))
            })
        };
        let is_one_place = matches!(
            (&settings.stream, &settings.topic, &settings.to),
            (Some(_), _, None) | (None, None, Some(_))
        );
        all([
            address("url", &settings.url).and_then(|()| check_base("url", &settings.url)),
            check_address("email", &settings.email),
            check_token("api_key", &settings.api_key, 200),
            name("stream", settings.stream.as_deref()),
            name("topic", settings.topic.as_deref()),
            settings.to.map_or(Ok(()), |to| check_address("to", &to)),
            if is_one_place {
                Ok(())
            } else {
                Err(FieldError::new(
                    "/settings",
                    "names neither a stream, perhaps with a topic, nor to; one of the two is allowed",
                ))
            },
        ])
    }
}

/// Checks the address of a bot or a person. It must have no colon, which would end the name in the header.
fn check_address(field: &str, address: &str) -> Result<(), FieldError> {
    if is_email(address) && address.is_ascii() && !address.contains(':') {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is not a mail address, as Zulip shows it for a bot or a person",
    ))
}

impl Kind for Zulip {
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
        &["api_key"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(ZulipSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct ZulipSender {
    outbound: Outbound,
}

impl Sender for ZulipSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Ok(settings) = outgoing.settings.read::<ZulipSettings>() else {
                return misfit(NAME);
            };
            let place = Place {
                outbound: &self.outbound,
                outgoing: &outgoing,
                story: Story::of(&outgoing.message),
                settings,
            };
            keep_one_message(&place, &outgoing).await
        })
    }
}

/// A topic or a person, with the alert to send there.
struct Place<'a> {
    outbound: &'a Outbound,
    outgoing: &'a Outgoing,
    story: Story,
    settings: ZulipSettings,
}

impl Place<'_> {
    /// Returns the recipient of messages, as fields of a request.
    fn target(&self) -> Vec<(&'static str, String)> {
        match &self.settings.to {
            Some(to) => vec![("type", "direct".to_owned()), ("to", json!([to]).to_string())],
            None => vec![
                ("type", "stream".to_owned()),
                ("to", self.settings.stream.clone().unwrap_or_default()),
                (
                    "topic",
                    self.settings.topic.clone().unwrap_or_else(|| TOPIC.to_owned()),
                ),
            ],
        }
    }

    /// Makes a request with the fields as a form.
    async fn call(
        &self,
        method: Method,
        path: &[&str],
        fields: &[(&'static str, String)],
    ) -> Result<Sent, Fault> {
        let credentials = STANDARD.encode(format!("{}:{}", self.settings.email, self.settings.api_key));
        let url = below(&self.settings.url, path);
        let (Some(url), Ok(mut authorization)) =
            (url, HeaderValue::from_str(&format!("Basic {credentials}")))
        else {
            return Err(misfit(NAME).into());
        };
        authorization.set_sensitive(true);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let is_change = method == Method::PATCH;
        let call = Call {
            method,
            url: url.into(),
            headers: HeaderMap::from_iter([(AUTHORIZATION, authorization), (CONTENT_TYPE, form)]),
            body: form_urlencoded::Serializer::new(String::new())
                .extend_pairs(fields)
                .finish()
                .into_bytes(),
            reads_success: true,
        };
        let answer = self.outbound.send(call).await;
        let said = said(&answer);
        if let Some(error) = said["code"].as_str().filter(|error| DEAD.contains(error)) {
            return Err(dead(&answer, self.outgoing, error).into());
        }
        // The message was deleted, or is too old to change. Zulip has no code for either, and translates the text, so
        // the text cannot be compared.
        if is_change && status_of(&answer) == Some(400) && said["result"] == json!("error") {
            return Err(Fault::Gone);
        }
        let answer = judge(answer, self.outgoing, &[])?;
        if said["result"] != json!("success") {
            return Err(odd(&answer, self.outgoing).into());
        }
        let place = json!(self.target());
        Ok(Sent {
            status: answer.status,
            message: said["id"].as_u64().map(|id| json!({"id": id, "place": place})),
        })
    }

    async fn post(&self, content: String) -> Result<Sent, Outcome> {
        let mut fields = self.target();
        fields.push(("content", content));
        self.call(Method::POST, &["api", "v1", "messages"], &fields)
            .await
            .map_err(Fault::into_outcome)
    }

    fn content(&self) -> String {
        render(&self.story, &Markdown, Content::All, CONTENT_CHARS)
    }
}

impl Room for Place<'_> {
    fn send(&self) -> BoxFuture<'_, Result<Sent, Outcome>> {
        Box::pin(self.post(self.content()))
    }

    fn change<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Fault>> {
        Box::pin(async move {
            let id = earlier["id"].as_u64().map(|id| id.to_string());
            // The channel's settings may name another place by now.
            let Some(id) = id.filter(|_| earlier["place"] == json!(self.target())) else {
                return Err(Fault::Gone);
            };
            let fields = [("content", self.content())];
            self.call(Method::PATCH, &["api", "v1", "messages", &id], &fields)
                .await
        })
    }

    fn add<'a>(&'a self, _earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Outcome>> {
        Box::pin(self.post(render(&self.story, &Markdown, Content::All, NOTICE_CHARS)))
    }
}

/// Zulip's Markdown. Mentions, silent mentions and links to channels use `**` or `*`, which have no escape.
struct Markdown;

impl Markup for Markdown {
    fn escape(&self, text: &str) -> String {
        swapped(&unlinked(text), &[('*', '∗'), ('~', '∼'), ('`', 'ˋ')])
            .replace("](", "] (")
            .replace("][", "] [")
            .replace("]:", "] :")
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
