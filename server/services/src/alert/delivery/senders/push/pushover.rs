//! Pushover: notifications to the devices of a user or a group.
//!
//! A critical incident sends an emergency: Pushover repeats it until a person confirms it in the app. Each emergency
//! carries the incident's id as a tag, and an acknowledgement or the end of the incident cancels all emergencies with
//! the tag. A tag also finds an emergency whose answer was lost, and the one before a reminder; the receipt of the
//! last answer finds neither.
//!
//! Sources: <https://pushover.net/api>, sections Pushing Messages, Limits, Response Format and Being Friendly, and
//! <https://pushover.net/api/receipts>, with `cancel_by_tag`.

use std::sync::Arc;

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::super::answer::{judge, misfit, sent};
use super::super::chat::{all, dead, odd, said, status_of};
use super::super::http::check_token;
use super::super::markup::{Content, Markup, cut, render};
use super::super::pager::event::Page;
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::plain::CHARS;
use super::{Urgency, call_form};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "pushover";
const HOST: &str = "api.pushover.net";
/// The most characters of each text, by the section Limits.
const TITLE_CHARS: usize = 250;
const MESSAGE_CHARS: usize = 1_024;
const URL_CHARS: usize = 512;
/// How often an emergency sounds, and for how long, in seconds, if the settings do not say so.
const RETRY_SECONDS: u32 = 60;
const EXPIRE_SECONDS: u32 = 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushoverSettings {
    token: String,
    user: String,
    device: Option<String>,
    retry_seconds: Option<u32>,
    expire_seconds: Option<u32>,
}

/// The kind `pushover`.
pub struct Pushover;

fn check_device(device: &str) -> Result<(), FieldError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=25).contains(&device.len()) && device.bytes().all(is_plain) {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/device",
        "is not the name of a device: 1 to 25 letters, digits, _ and -",
    ))
}

fn check_seconds(field: &str, seconds: Option<u32>) -> Result<(), FieldError> {
    if seconds.is_none_or(|seconds| (30..=10_800).contains(&seconds)) {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is not 30 to 10800 seconds",
    ))
}

impl Kind for Pushover {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: PushoverSettings = read(settings)?;
        all([
            check_token("token", &settings.token, 100),
            check_token("user", &settings.user, 100),
            settings.device.as_deref().map_or(Ok(()), check_device),
            check_seconds("retry_seconds", settings.retry_seconds),
            check_seconds("expire_seconds", settings.expire_seconds),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token", "user"]
    }

    fn host(&self, _settings: &Settings) -> Option<String> {
        Some(HOST.to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(PushoverSender {
            outbound: parts.outbound.clone(),
            api: format!("https://{HOST}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct PushoverSender {
    outbound: Outbound,
    api: String,
}

impl PushoverSender {
    async fn attempt(&self, outgoing: &Outgoing) -> Result<Outcome, Outcome> {
        let Ok(settings) = outgoing.settings.read::<PushoverSettings>() else {
            return Err(misfit(NAME));
        };
        // A reminder cancels nothing: if its own message failed, the phone would be silent.
        if matches!(outgoing.message.alert(), Alert::Acknowledged | Alert::Resolved) {
            self.cancel(outgoing, &settings).await?;
        }
        let url = format!("{}/1/messages.json", self.api);
        let answer = call_form(&self.outbound, &url, None, &message(outgoing, &settings)).await;
        let said = said(&answer);
        // The names of the parameters that Pushover refuses have the value `invalid`.
        let is_refused = |field: &str| said[field] == "invalid";
        if status_of(&answer) == Some(400) && ["token", "user", "device"].into_iter().any(is_refused) {
            return Err(dead(&answer, outgoing, &said["errors"].to_string()));
        }
        let answer = judge(answer, outgoing, &[])?;
        if said["status"] == 1 {
            Ok(sent(&answer, None))
        } else {
            Err(odd(&answer, outgoing))
        }
    }

    /// Ends the repetition of all emergencies of the incident. It comes before the message: if a later attempt
    /// repeats it, nobody notices.
    async fn cancel(&self, outgoing: &Outgoing, settings: &PushoverSettings) -> Result<(), Outcome> {
        let tag = Page::of(outgoing).key;
        let url = format!("{}/1/receipts/cancel_by_tag/{tag}.json", self.api);
        let answer = call_form(&self.outbound, &url, None, &[("token", settings.token.clone())]).await;
        match status_of(&answer) {
            // There is no emergency with the tag, or the token is wrong: the message then fails for the same reason.
            Some(400 | 404) => Ok(()),
            _ => judge(answer, outgoing, &[]).map(drop),
        }
    }
}

impl Sender for PushoverSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.attempt(&outgoing).await.unwrap_or_else(|outcome| outcome) })
    }
}

fn message(outgoing: &Outgoing, settings: &PushoverSettings) -> Vec<(&'static str, String)> {
    let mut story = Story::of(&outgoing.message);
    let mut form = vec![
        ("token", settings.token.clone()),
        ("user", settings.user.clone()),
        ("title", CHARS.escape(&cut(&story.headline, TITLE_CHARS))),
        ("timestamp", outgoing.message.at.timestamp().to_string()),
    ];
    let fits = |url: &mut String| url.chars().count() <= URL_CHARS;
    // A field has the more important link, so the text does not.
    let link = match story.acknowledge.take_if(fits) {
        Some(url) => Some(("Acknowledge", url)),
        None => story.link.take_if(fits).map(|url| ("Open in Deadbeat", url)),
    };
    if let Some((label, url)) = link {
        form.extend([("url", url), ("url_title", label.to_owned())]);
    }
    form.push((
        "message",
        render(&story, &CHARS, Content::WithoutHeadline, MESSAGE_CHARS),
    ));
    form.extend(settings.device.clone().map(|device| ("device", device)));
    let priority = match Urgency::of(&outgoing.message) {
        Urgency::Quiet => "-1",
        Urgency::Normal => "0",
        Urgency::High => "1",
        Urgency::Emergency => "2",
    };
    form.push(("priority", priority.to_owned()));
    if priority == "2" {
        let seconds = |given: Option<u32>, otherwise| given.unwrap_or(otherwise).to_string();
        form.extend([
            ("retry", seconds(settings.retry_seconds, RETRY_SECONDS)),
            ("expire", seconds(settings.expire_seconds, EXPIRE_SECONDS)),
            ("tags", Page::of(outgoing).key),
        ]);
    }
    form
}

#[cfg(test)]
mod tests;
