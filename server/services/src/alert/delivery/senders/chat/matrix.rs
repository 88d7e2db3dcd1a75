//! Matrix, as a user of a homeserver. The user changes the message of an incident.
//!
//! Sources: the client-server API v1.15 of <https://spec.matrix.org/v1.15/client-server-api/>, sections
//! `#put_matrixclientv3roomsroomidsendeventtypetxnid`, `#mroommessage-msgtypes`, `#event-replacements`, `#rich-replies`,
//! `#user-and-room-mentions` and `#standard-error-response`.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit};
use super::super::http::{call_json, check_new_url, check_reach, check_token, check_url, host_of};
use super::super::markup::{Content, Markup, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::room::{Fault, Room, Sent, keep_one_message};
use super::text::{Html, unlinked};
use super::{NOTICE_CHARS, all, below, check_base, dead, odd, said, waiting};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "matrix";
/// The most bytes of the HTML. An event has at most 65,536 bytes as JSON, and a change holds each text twice.
const HTML_BYTES: usize = 8_000;
/// The most bytes of the plain text.
const PLAIN_BYTES: usize = 6_000;
/// The token was not recognised; the user is deactivated.
const DEAD: [&str; 2] = ["M_UNKNOWN_TOKEN", "M_USER_DEACTIVATED"];

/// HTML whose length counts the end of a line as `<br>`, which replaces it.
const HTML: Html = Html {
    length: |text| text.len() + 3 * text.matches('\n').count(),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixSettings {
    url: String,
    access_token: String,
    room_id: String,
}

/// The kind `matrix`.
pub struct Matrix;

impl Matrix {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: MatrixSettings = read(settings)?;
        all([
            address("url", &settings.url).and_then(|()| check_base("url", &settings.url)),
            check_token("access_token", &settings.access_token, 2_000),
            check_room(&settings.room_id),
        ])
    }
}

/// Checks the id of a room. An alias, which begins with `#`, is refused.
fn check_room(room: &str) -> Result<(), FieldError> {
    check_token("room_id", room, 255)?;
    if room.starts_with('!') && room.len() > 1 {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/room_id",
        "is not the id of a room, such as !abc:example.org; clients show it in the room's settings",
    ))
}

impl Kind for Matrix {
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
        &["access_token"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(MatrixSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct MatrixSender {
    outbound: Outbound,
}

impl Sender for MatrixSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Ok(settings) = outgoing.settings.read::<MatrixSettings>() else {
                return misfit(NAME);
            };
            let room = MatrixRoom {
                outbound: &self.outbound,
                outgoing: &outgoing,
                story: Story::of(&outgoing.message),
                settings,
            };
            keep_one_message(&room, &outgoing).await
        })
    }
}

/// A room, with the alert to send there.
struct MatrixRoom<'a> {
    outbound: &'a Outbound,
    outgoing: &'a Outgoing,
    story: Story,
    settings: MatrixSettings,
}

impl MatrixRoom<'_> {
    /// Sends an event. The server accepts a transaction once, so a repeated attempt makes no second event. `part`
    /// distinguishes the events of one delivery.
    async fn put(&self, part: &str, content: &Value) -> Result<Sent, Outcome> {
        let transaction = format!("{}{part}", self.outgoing.id.0);
        let room = self.settings.room_id.as_str();
        let path = [
            "_matrix",
            "client",
            "v3",
            "rooms",
            room,
            "send",
            "m.room.message",
            &transaction,
        ];
        let Some(url) = below(&self.settings.url, &path) else {
            return Err(misfit(NAME));
        };
        let authorization = format!("Bearer {}", self.settings.access_token);
        let headers = [("authorization", authorization.as_str())];
        let answer = call_json(self.outbound, Method::PUT, url.as_str(), &headers, content).await;
        let said = said(&answer);
        if let Some(error) = said["errcode"].as_str().filter(|error| DEAD.contains(error)) {
            return Err(dead(&answer, self.outgoing, error));
        }
        // Servers before v1.10 send no `Retry-After`.
        let asked = said["retry_after_ms"].as_i64();
        let answer = judge(answer, self.outgoing, &[]).map_err(|outcome| waiting(outcome, asked))?;
        match said["event_id"].as_str() {
            Some(event) => Ok(Sent {
                status: answer.status,
                message: Some(json!({"room": room, "event": event})),
            }),
            None => Err(odd(&answer, self.outgoing)),
        }
    }

    /// Returns a text as plain text and as HTML. The empty `m.mentions` keeps clients from mentioning anybody.
    fn content(&self, plain: usize, html: usize) -> Value {
        let html = render(&self.story, &HTML, Content::All, html).replace('\n', "<br>");
        json!({
            "msgtype": "m.text",
            "body": render(&self.story, &Plain, Content::All, plain),
            "format": "org.matrix.custom.html",
            "formatted_body": html,
            "m.mentions": {},
        })
    }
}

impl Room for MatrixRoom<'_> {
    fn send(&self) -> BoxFuture<'_, Result<Sent, Outcome>> {
        Box::pin(async move { self.put("", &self.content(PLAIN_BYTES, HTML_BYTES)).await })
    }

    fn change<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Fault>> {
        Box::pin(async move {
            // The channel's settings may name another room by now.
            if earlier["room"] != json!(self.settings.room_id) {
                return Err(Fault::Gone);
            }
            let new = self.content(PLAIN_BYTES, HTML_BYTES);
            let mut change = new.clone();
            // Clients that do not support changes show these.
            for text in ["body", "formatted_body"] {
                change[text] = json!(format!("* {}", new[text].as_str().unwrap_or_default()));
            }
            change["m.new_content"] = new;
            change["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": earlier["event"]});
            Ok(self.put("-change", &change).await?)
        })
    }

    fn add<'a>(&'a self, earlier: &'a Value) -> BoxFuture<'a, Result<Sent, Outcome>> {
        Box::pin(async move {
            let mut content = self.content(NOTICE_CHARS, NOTICE_CHARS);
            content["m.relates_to"] = json!({"m.in_reply_to": {"event_id": earlier["event"]}});
            self.put("-more", &content).await
        })
    }
}

/// The text for clients without HTML.
struct Plain;

impl Markup for Plain {
    fn escape(&self, text: &str) -> String {
        unlinked(text)
    }

    fn bold(&self, escaped: &str) -> String {
        escaped.to_owned()
    }

    fn code(&self, command: &str) -> Option<String> {
        Some(format!("    {command}"))
    }

    fn link(&self, label: &str, url: &str) -> String {
        format!("{label}: {url}")
    }

    fn length(&self, text: &str) -> usize {
        text.len()
    }
}

#[cfg(test)]
mod tests;
