//! Prometheus Alertmanager, by its API v2.
//!
//! One incident is one alert. Alertmanager identifies an alert by its labels, so all alerts of an incident have the
//! labels of the first one, which the handle keeps. Alertmanager resolves an alert without an end after
//! `resolve_timeout`, unless a client repeats it all the time, as Prometheus does. So each alert has an end: far in
//! the future while the incident is open, in the past when it is resolved.
//!
//! Alertmanager keeps alerts in memory. After it restarts, the next reminder brings an open incident back.
//!
//! Sources: <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>,
//! <https://prometheus.io/docs/alerting/latest/alerts_api/>, <https://prometheus.io/docs/alerting/latest/https/>.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::Event;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_new_url, check_reach, check_token, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check::{Address, all, below, server};
use super::event::{Action, Level, Page, labels};
use super::plain::{Plain, neutral};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "alertmanager";
/// The most characters of annotations. Alertmanager has no limit for them, but its receivers cut them.
const SUMMARY_CHARS: usize = 250;
const DESCRIPTION_CHARS: usize = 8_000;
/// Time after which Alertmanager resolves an open incident by itself, if no alert about its end arrives.
const OPEN: TimeDelta = TimeDelta::days(365);
/// Time after which a notice about a channel or a blind spell ends.
const NOTICE: TimeDelta = TimeDelta::hours(1);
/// Time after which a test ends: long enough for a receiver that waits for a group.
const TEST: TimeDelta = TimeDelta::minutes(5);
/// Clock skew that is tolerated: Alertmanager's clock may be this much behind. If an end is still in its future,
/// Alertmanager keeps the far end of the earlier alert, and the alert stays open.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);

/// Settings: either no credentials, or `username` and `password`, or `token`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertmanagerSettings {
    url: String,
    username: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

impl AlertmanagerSettings {
    /// Returns the header `Authorization`.
    fn authorization(&self) -> Result<Option<String>, FieldError> {
        match (&self.username, &self.password, &self.token) {
            (None, None, None) => Ok(None),
            (Some(username), Some(password), None) => Ok(Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{username}:{password}"))
            ))),
            (None, None, Some(token)) => Ok(Some(format!("Bearer {token}"))),
            _ => Err(FieldError::new(
                "/settings",
                "holds credentials in part or twice; username and password, or token, or none of them are allowed",
            )),
        }
    }
}

/// The kind `alertmanager`.
pub struct Alertmanager;

impl Alertmanager {
    fn check_with(settings: &Settings, address: Address) -> Result<(), Vec<FieldError>> {
        let settings: AlertmanagerSettings = read(settings)?;
        let token = |field, value: &Option<String>| match value {
            Some(value) => check_token(field, value, 1_000),
            None => Ok(()),
        };
        all([
            server("url", &settings.url, address),
            token("username", &settings.username),
            token("password", &settings.password),
            token("token", &settings.token),
            match &settings.username {
                Some(name) if name.contains(':') => Err(FieldError::new(
                    "/settings/username",
                    "holds a colon, which ends a user name in HTTP",
                )),
                _ => Ok(()),
            },
            settings.authorization().map(drop),
        ])
    }
}

impl Kind for Alertmanager {
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
        &["password", "token"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(AlertmanagerSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct AlertmanagerSender {
    outbound: Outbound,
}

/// The handle: the labels by which Alertmanager identifies the alert.
#[derive(Deserialize)]
struct Handle {
    labels: BTreeMap<String, String>,
}

impl AlertmanagerSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<AlertmanagerSettings>() else {
            return misfit(NAME);
        };
        let Ok(authorization) = settings.authorization() else {
            return misfit(NAME);
        };
        let url = below(&settings.url, "/api/v2/alerts");
        let headers: Vec<(&'static str, &str)> = authorization
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect();
        let alert = alert(&outgoing);
        let handle = json!({"labels": alert["labels"]});
        let body = json!([alert]);
        let answer = call_json(&self.outbound, Method::POST, &url, &headers, &body).await;
        match judge(answer, &outgoing, &[]) {
            Ok(answer) => sent(&answer, Some(handle)),
            Err(outcome) => outcome,
        }
    }
}

impl Sender for AlertmanagerSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

fn alert(outgoing: &Outgoing) -> Value {
    let page = Page::of(outgoing);
    let message = &outgoing.message;
    let story = Story::of(message);
    let starts = message
        .incident()
        .map_or(message.at, |incident| incident.opened_at);
    let mut annotations = json!({
        "summary": Plain.escape(&cut(&story.headline, SUMMARY_CHARS)),
        "description": render(&story, &Plain, Content::WithoutHeadline, DESCRIPTION_CHARS),
    });
    if let Some(cause) = &story.cause {
        annotations["runbook_url"] = json!(cause.url);
    }
    if let Some(at) = message.incident().and_then(|incident| incident.acknowledged_at) {
        annotations["acknowledged_at"] = json!(time(at));
    }
    let mut alert = json!({
        "labels": alert_labels(outgoing, &page),
        "annotations": annotations,
        "startsAt": time(starts),
        "endsAt": time(end(outgoing, &page, starts)),
    });
    if let Some(link) = &story.link {
        alert["generatorURL"] = json!(link);
    }
    alert
}

/// Returns the labels of the first alert of the incident, so that a renamed monitor makes no second alert.
fn alert_labels(outgoing: &Outgoing, page: &Page) -> BTreeMap<String, String> {
    let first: Option<Handle> = outgoing
        .handle
        .clone()
        .and_then(|handle| serde_json::from_value(handle).ok());
    if let Some(first) = first {
        return first.labels;
    }
    let name = match outgoing.message.alert() {
        Alert::Test => "DeadbeatTest",
        Alert::ChannelDisabled => "DeadbeatChannelDisabled",
        Alert::BlindSpell => "DeadbeatBlindSpell",
        _ => "DeadbeatIncident",
    };
    labels(&outgoing.message, page)
        .into_iter()
        .chain([("alertname", name.to_owned())])
        .map(|(name, value)| (name.to_owned(), neutral(&value)))
        .collect()
}

/// Returns the time at which the alert ends, by the clock of this server.
fn end(outgoing: &Outgoing, page: &Page, starts: DateTime<Utc>) -> DateTime<Utc> {
    let now = outgoing.attempted_at;
    match (page.action, &outgoing.message.event) {
        (Action::Resolve, Event::Incident(event)) => {
            let resolved = event.incident.resolved_at.unwrap_or(now);
            resolved.min(now - CLOCK_SKEW).max(starts)
        }
        (Action::Resolve, _) => starts,
        _ if page.is_test => now + TEST,
        _ if page.level == Level::Critical => now + OPEN,
        _ => now + NOTICE,
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests;
