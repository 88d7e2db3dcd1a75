//! Jira Service Management, by the alerts of its Operations; and Opsgenie, whose API it took over.
//!
//! Opsgenie's own hosts shut down on 2027-04-05. One incident is one alert: the alias is the incident's id. Both services answer 202
//! before they do the work, so an accepted request may still have no effect. The integration's log then shows the reason.
//!
//! Sources: <https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v1/api-group-integration-events>,
//! <https://docs.opsgenie.com/docs/alert-api>, <https://docs.opsgenie.com/docs/response>,
//! <https://support.atlassian.com/opsgenie/docs/what-happens-when-opsgenie-is-turned-off>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::Event;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_proof, check_token};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, printable, read};
use super::check::all;
use super::event::{Action, Level, Page, labels};
use super::plain::{Plain, neutral};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "jira_service_management";
/// The source that alerts name.
const SOURCE: &str = "Deadbeat";
/// The most characters of the fields: message, description, note, tag and entity.
const MESSAGE_CHARS: usize = 130;
const DESCRIPTION_CHARS: usize = 15_000;
const NOTE_CHARS: usize = 2_000;
const TAG_CHARS: usize = 50;
const ENTITY_CHARS: usize = 512;
/// The most tags.
const TAGS: usize = 20;
/// 401 means `apiKey is invalid or integration is disabled`.
const PERMANENT: [u16; 1] = [401];

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsmSettings {
    api_key: String,
    #[serde(default)]
    service: Service,
    /// Proves what the service's webhooks say (`incident/callback/jira_service_management.rs`). None: they are not taken.
    #[serde(default)]
    webhook_token: Option<String>,
}

/// The service that keeps the alerts.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Service {
    #[default]
    JiraServiceManagement,
    Opsgenie,
    OpsgenieEu,
}

impl Service {
    const ALL: [Self; 3] = [Self::JiraServiceManagement, Self::Opsgenie, Self::OpsgenieEu];

    fn host(self) -> &'static str {
        match self {
            Self::JiraServiceManagement => "api.atlassian.com",
            Self::Opsgenie => "api.opsgenie.com",
            Self::OpsgenieEu => "api.eu.opsgenie.com",
        }
    }

    /// Returns the path of alerts.
    fn path(self) -> &'static str {
        match self {
            Self::JiraServiceManagement => "/jsm/ops/integration/v2/alerts",
            Self::Opsgenie | Self::OpsgenieEu => "/v2/alerts",
        }
    }
}

/// The kind `jira_service_management`.
pub struct JiraServiceManagement;

impl Kind for JiraServiceManagement {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: JsmSettings = read(settings)?;
        all([
            check_token("api_key", &settings.api_key, 200),
            check_proof("webhook_token", settings.webhook_token.as_deref(), 200),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["api_key", "webhook_token"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        let service = settings.get("service").map(Service::deserialize);
        Some(service.and_then(Result::ok).unwrap_or_default().host().to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(JsmSender {
            outbound: parts.outbound.clone(),
            bases: Service::ALL.map(|service| format!("https://{}", service.host())),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct JsmSender {
    outbound: Outbound,
    /// In the order of [`Service::ALL`].
    bases: [String; 3],
}

impl JsmSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<JsmSettings>() else {
            return misfit(NAME);
        };
        let page = Page::of(&outgoing);
        let alerts = format!(
            "{}{}",
            self.bases[settings.service as usize],
            settings.service.path()
        );
        let (url, body) = match page.action {
            Action::Trigger => (alerts, alert(&outgoing, &page)),
            Action::Acknowledge => (action(&alerts, &page, "acknowledge"), note(&outgoing)),
            Action::Resolve => (action(&alerts, &page, "close"), note(&outgoing)),
        };
        let authorization = format!("GenieKey {}", settings.api_key);
        let headers = [("authorization", authorization.as_str())];
        let answer = call_json(&self.outbound, Method::POST, &url, &headers, &body).await;
        match judge(answer, &outgoing, &PERMANENT) {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => outcome,
        }
    }
}

/// Returns the address of an action. The key is a UUID, so it needs no escapes.
fn action(alerts: &str, page: &Page, action: &str) -> String {
    format!("{alerts}/{}/{action}?identifierType=alias", page.key)
}

impl Sender for JsmSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

/// Builds a new alert. If an alert with the alias exists, the service counts a repetition instead.
fn alert(outgoing: &Outgoing, page: &Page) -> Value {
    let message = &outgoing.message;
    let story = Story::of(message);
    let details: Map<String, Value> = labels(message, page)
        .into_iter()
        .chain(story.link.clone().map(|link| ("link", link)))
        .map(|(name, value)| (name.to_owned(), Value::from(neutral(&value))))
        .collect();
    let mut alert = json!({
        "message": Plain.escape(&cut(&story.headline, MESSAGE_CHARS)),
        "alias": page.key,
        "description": render(&story, &Plain, Content::WithoutHeadline, DESCRIPTION_CHARS),
        "priority": match page.level {
            Level::Critical => "P1",
            Level::Warning => "P3",
            Level::Info => "P5",
        },
        "source": SOURCE,
        "tags": tags(outgoing),
        "details": details,
    });
    if let Some(incident) = message.incident() {
        alert["entity"] = json!(neutral(&printable(&incident.subject.name, ENTITY_CHARS)));
    }
    alert
}

/// Returns the cause and the monitor's tags, by which the service can route.
fn tags(outgoing: &Outgoing) -> Vec<String> {
    let (cause, tags) = match &outgoing.message.event {
        Event::Incident(event) => (
            Some(event.incident.cause.code.as_str()),
            event.monitor.as_ref().map(|monitor| monitor.tags.as_slice()),
        ),
        _ => (None, None),
    };
    ["deadbeat"]
        .into_iter()
        .chain(cause)
        .chain(tags.unwrap_or_default().iter().map(String::as_str))
        .map(|tag| neutral(&printable(tag, TAG_CHARS)))
        .filter(|tag| !tag.is_empty())
        .take(TAGS)
        .collect()
}

/// Builds the body of an action.
fn note(outgoing: &Outgoing) -> Value {
    let story = Story::of(&outgoing.message);
    json!({
        "source": SOURCE,
        "note": render(&story, &Plain, Content::All, NOTE_CHARS),
    })
}

#[cfg(test)]
mod tests;
