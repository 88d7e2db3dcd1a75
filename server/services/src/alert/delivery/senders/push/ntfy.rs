//! ntfy: notifications to the subscribers of a topic, by ntfy.sh or by a server of the team.
//!
//! One incident is one notification: each alert replaces it, because it has the same `sequence_id`. The app plays no
//! sound for a notification that replaces a visible one, so a reminder and an escalation first delete it. A server
//! before ntfy 2.16 knows no sequences: it shows a notification for each alert.
//!
//! Sources: <https://docs.ntfy.sh/publish/#publish-as-json>,
//! <https://docs.ntfy.sh/publish/#updating-deleting-notifications>, <https://docs.ntfy.sh/publish/#limitations>, the
//! error codes in `server/errors.go` of <https://github.com/binwiederhier/ntfy>, and `setOnlyAlertOnce` in
//! `NotificationService.kt` of <https://github.com/binwiederhier/ntfy-android>.

use std::sync::Arc;

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::chat::{all, below, check_base, dead, odd, said, status_of};
use super::super::http::{call_json, check_new_url, check_reach, check_token, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::pager::event::Page;
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::plain::BYTES;
use super::{Urgency, basic};
use crate::alert::delivery::outbound::{Answer, Outbound};
use crate::alert::delivery::story::{Story, Tone};

const NAME: &str = "ntfy";
/// The most characters of a title. ntfy documents no limit; a phone shows less.
const TITLE_CHARS: usize = 200;
/// The most bytes of a message. ntfy makes a file of a longer message: the limit is 4,096 bytes.
const MESSAGE_BYTES: usize = 4_000;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NtfySettings {
    url: String,
    topic: String,
    token: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl NtfySettings {
    /// Returns the header `Authorization`. None: the topic needs none.
    fn authorization(&self) -> Option<String> {
        match (&self.token, &self.username, &self.password) {
            (Some(token), _, _) => Some(format!("Bearer {token}")),
            (None, Some(username), Some(password)) => Some(basic(username, password)),
            _ => None,
        }
    }
}

/// The kind `ntfy`.
pub struct Ntfy;

/// Checks a topic. Whoever knows the topic of a public server may read it, so it is a secret.
fn check_topic(topic: &str) -> Result<(), FieldError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=64).contains(&topic.len()) && topic.bytes().all(is_plain) {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/topic",
        "is not 1 to 64 letters, digits, _ and -",
    ))
}

fn check_login(settings: &NtfySettings) -> Result<(), FieldError> {
    match (&settings.token, &settings.username, &settings.password) {
        (Some(token), None, None) => check_token("token", token, 200),
        (None, Some(username), Some(password)) => {
            check_token("username", username, 200)?;
            if username.contains(':') {
                return Err(FieldError::new("/settings/username", "holds a colon"));
            }
            check_token("password", password, 200)
        }
        (None, None, None) => Ok(()),
        _ => Err(FieldError::new(
            "/settings",
            "holds neither token alone, nor username with password; without both, the topic needs no login",
        )),
    }
}

impl Ntfy {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: NtfySettings = read(settings)?;
        all([
            address("url", &settings.url).and_then(|()| check_base("url", &settings.url)),
            check_topic(&settings.topic),
            check_login(&settings),
        ])
    }
}

impl Kind for Ntfy {
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
        &["topic", "token", "password"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(NtfySender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct NtfySender {
    outbound: Outbound,
}

impl NtfySender {
    async fn attempt(&self, outgoing: &Outgoing) -> Result<Outcome, Outcome> {
        let Ok(settings) = outgoing.settings.read::<NtfySettings>() else {
            return Err(misfit(NAME));
        };
        let sequence = Page::of(outgoing).key;
        if matches!(outgoing.message.alert(), Alert::Reminder | Alert::Escalated) {
            self.delete(outgoing, &settings, &sequence).await?;
        }
        // A message in JSON goes to the address of the server, which names no topic.
        let body = notification(outgoing, &settings.topic, &sequence);
        let answer = self
            .call(outgoing, &settings, &[""], Some(&body))
            .await
            .map_err(Refused::into_outcome)?;
        let is_message = serde_json::from_slice::<Value>(&answer.body)
            .is_ok_and(|said| said["event"] == "message" && said["id"].is_string());
        if is_message {
            Ok(sent(&answer, None))
        } else {
            Err(odd(&answer, outgoing))
        }
    }

    /// Deletes the notification of an incident, so that the next one makes a sound.
    async fn delete(
        &self,
        outgoing: &Outgoing,
        settings: &NtfySettings,
        sequence: &str,
    ) -> Result<(), Outcome> {
        let path = [settings.topic.as_str(), sequence];
        match self.call(outgoing, settings, &path, None).await {
            // An older server has no such address, and keeps no notification that could hide the next one.
            Ok(_) | Err(Refused::Unknown(_)) => Ok(()),
            Err(Refused::Ended(outcome)) => Err(outcome),
        }
    }

    /// Sends a notification, or deletes the one that the path names.
    async fn call(
        &self,
        outgoing: &Outgoing,
        settings: &NtfySettings,
        path: &[&str],
        notification: Option<&Value>,
    ) -> Result<Answer, Refused> {
        let Some(url) = below(&settings.url, path) else {
            return Err(Refused::Ended(misfit(NAME)));
        };
        let login = settings.authorization();
        let headers: Vec<_> = login
            .iter()
            .map(|login| ("authorization", login.as_str()))
            .collect();
        let (method, body) = match notification {
            Some(notification) => (Method::POST, notification),
            None => (Method::DELETE, &Value::Null),
        };
        let answer = call_json(&self.outbound, method, url.as_str(), &headers, body).await;
        let status = status_of(&answer);
        let said = said(&answer);
        // 40101: the login is wrong. 40301: the login may not write to the topic. 40009 and 40010: the server has no
        // such topic.
        if let (Some(400..=499), Some(40_101 | 40_301 | 40_009 | 40_010)) = (status, said["code"].as_i64()) {
            let error = said["error"].as_str().unwrap_or_default();
            return Err(Refused::Ended(dead(&answer, outgoing, error)));
        }
        judge(answer, outgoing, &[]).map_err(|outcome| match status {
            Some(404 | 405) => Refused::Unknown(outcome),
            _ => Refused::Ended(outcome),
        })
    }
}

/// Why the server did not do what a request asked.
enum Refused {
    /// It has no such address, or the address knows no such method.
    Unknown(Outcome),
    /// The attempt ends with this outcome.
    Ended(Outcome),
}

impl Refused {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::Unknown(outcome) | Self::Ended(outcome) => outcome,
        }
    }
}

impl Sender for NtfySender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.attempt(&outgoing).await.unwrap_or_else(|outcome| outcome) })
    }
}

fn notification(outgoing: &Outgoing, topic: &str, sequence: &str) -> Value {
    let mut story = Story::of(&outgoing.message);
    // Buttons have these links, so the text does not.
    let (acknowledge, link) = (story.acknowledge.take(), story.link.take());
    let mut notification = json!({
        "topic": topic,
        "sequence_id": sequence,
        "title": BYTES.escape(&cut(&story.headline, TITLE_CHARS)),
        "message": render(&story, &BYTES, Content::WithoutHeadline, MESSAGE_BYTES),
        "priority": priority(Urgency::of(&outgoing.message)),
        "tags": [match story.tone {
            Tone::Bad => "rotating_light",
            Tone::Good => "white_check_mark",
            Tone::Plain => "information_source",
        }],
    });
    let actions: Vec<Value> = [("Acknowledge", &acknowledge), ("Open in Deadbeat", &link)]
        .into_iter()
        .filter_map(|(label, url)| Some(json!({"action": "view", "label": label, "url": url.as_ref()?})))
        .collect();
    if !actions.is_empty() {
        notification["actions"] = json!(actions);
    }
    if let Some(link) = link {
        notification["click"] = json!(link);
    }
    notification
}

/// Returns the priority: 1 (lowest) to 5.
fn priority(urgency: Urgency) -> u8 {
    match urgency {
        Urgency::Quiet => 2,
        Urgency::Normal => 3,
        Urgency::High => 4,
        Urgency::Emergency => 5,
    }
}

#[cfg(test)]
mod tests;
