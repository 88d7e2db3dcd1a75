//! PagerDuty, by the Events API v2.
//!
//! One incident is one alert: the `dedup_key` is the incident's id. A test triggers an alert and resolves it at once.
//!
//! Sources: <https://developer.pagerduty.com/docs/events-api-v2-overview>, <https://developer.pagerduty.com/docs/send-alert-event>,
//! <https://github.com/PagerDuty/api-schema/blob/main/reference/events-v2/openapiv3.json>,
//! <https://support.pagerduty.com/main/docs/service-regions>.

use std::sync::Arc;

use chrono::SecondsFormat;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::alert::message::Event;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_proof, check_token};
use super::super::markup::cut;
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check::all;
use super::event::{Action, Level, Page, table};
use crate::alert::delivery::outbound::{Answer, Outbound};
use crate::alert::delivery::story::Story;

const NAME: &str = "pagerduty";
/// The hosts of the two service regions.
const US: &str = "events.pagerduty.com";
const EU: &str = "events.eu.pagerduty.com";
/// The most characters of `payload.summary`.
const SUMMARY_CHARS: usize = 1_024;
/// The most characters of the other fields. PagerDuty documents no limit for them; a whole event may have 512 KB.
const FIELD_CHARS: usize = 255;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PagerDutySettings {
    routing_key: String,
    #[serde(default)]
    region: Region,
    /// Proves what PagerDuty's webhooks say (`incident/callback/pagerduty.rs`). None: they are not taken.
    #[serde(default)]
    webhook_secret: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Region {
    #[default]
    Us,
    Eu,
}

/// The kind `pagerduty`.
pub struct PagerDuty;

impl Kind for PagerDuty {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: PagerDutySettings = read(settings)?;
        all([
            // A key has 32 characters. PagerDuty checks that itself, so a change there needs none here.
            check_token("routing_key", &settings.routing_key, 100),
            check_proof("webhook_secret", settings.webhook_secret.as_deref(), 200),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["routing_key", "webhook_secret"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        let region = settings.get("region").and_then(Value::as_str);
        Some(if region == Some("eu") { EU } else { US }.to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(PagerDutySender {
            outbound: parts.outbound.clone(),
            us: format!("https://{US}"),
            eu: format!("https://{EU}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct PagerDutySender {
    outbound: Outbound,
    us: String,
    eu: String,
}

impl PagerDutySender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<PagerDutySettings>() else {
            return misfit(NAME);
        };
        let page = Page::of(&outgoing);
        let first = self
            .enqueue(&outgoing, &settings, &event(&outgoing, &page, &settings))
            .await;
        let answer = match first {
            Ok(answer) if page.is_test => {
                let end = Page {
                    action: Action::Resolve,
                    ..page
                };
                // If this fails, the next attempt triggers the same alert again, because the key is the same.
                self.enqueue(&outgoing, &settings, &event(&outgoing, &end, &settings))
                    .await
                    .map(|_| answer)
            }
            first => first,
        };
        match answer {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => outcome,
        }
    }

    async fn enqueue(
        &self,
        outgoing: &Outgoing,
        settings: &PagerDutySettings,
        event: &Value,
    ) -> Result<Answer, Outcome> {
        let base = match settings.region {
            Region::Us => &self.us,
            Region::Eu => &self.eu,
        };
        let url = format!("{base}/v2/enqueue");
        let answer = call_json(&self.outbound, Method::POST, &url, &[], event).await;
        if let Ok(answer) = &answer
            && refuses_key(answer)
        {
            let said = outgoing.excerpt(&String::from_utf8_lossy(&answer.body), 200);
            return Err(Outcome::Failed {
                reason: Reason::Auth,
                code: Some(answer.status.into()),
                detail: format!("the routing key is not accepted: {said}"),
            });
        }
        judge(answer, outgoing, &[])
    }
}

/// True if PagerDuty refused the key. It answers 400 to a wrong key and to a wrong event, and names the fault:
/// `Invalid routing key`, or
/// `Length of 'routing_key' is incorrect (should be 32 characters)`.
fn refuses_key(answer: &Answer) -> bool {
    let said = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    answer.status == 400 && (said.contains("routing_key") || said.contains("routing key"))
}

impl Sender for PagerDutySender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

fn event(outgoing: &Outgoing, page: &Page, settings: &PagerDutySettings) -> Value {
    let mut event = json!({
        "routing_key": settings.routing_key,
        "dedup_key": page.key,
        "event_action": match page.action {
            Action::Trigger => "trigger",
            Action::Acknowledge => "acknowledge",
            Action::Resolve => "resolve",
        },
    });
    if page.action != Action::Trigger {
        return event;
    }
    let message = &outgoing.message;
    let story = Story::of(message);
    let field = |text: &str| json!(cut(text, FIELD_CHARS));
    event["client"] = json!("Deadbeat");
    event["payload"] = json!({
        "summary": cut(&story.headline, SUMMARY_CHARS),
        "severity": match page.level {
            Level::Critical => "critical",
            Level::Warning => "warning",
            Level::Info => "info",
        },
        "source": "Deadbeat",
        "timestamp": message.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "custom_details": table(&story),
    });
    if let Event::Incident(incident) = &message.event {
        let (incident, payload) = (&incident.incident, &mut event["payload"]);
        payload["source"] = field(&incident.subject.name);
        payload["component"] = field(incident.subject.kind.as_str());
        payload["group"] = field(&incident.project.name);
        payload["class"] = field(&incident.cause.code);
    }
    if let Some(link) = &story.link {
        event["client_url"] = json!(link);
    }
    let links = [
        story
            .link
            .as_ref()
            .map(|url| json!({"href": url, "text": "Open in Deadbeat"})),
        story
            .cause
            .as_ref()
            .map(|cause| json!({"href": cause.url, "text": cause.label()})),
    ];
    event["links"] = links.into_iter().flatten().collect();
    event
}

#[cfg(test)]
mod tests;
