//! Splunk On-Call (VictorOps), by its REST endpoint.
//!
//! One incident is one incident in Splunk On-Call: the `entity_id` is the incident's id in Deadbeat. A test is of the
//! type `INFO`, which pages nobody.
//!
//! Sources: <https://help.splunk.com/en/splunk-enterprise/alert-and-respond/splunk-on-call/integrations-with-splunk-on-call/rest-endpoint-integration-for-splunk-on-call>,
//! <https://help.splunk.com/en/splunk-observability-cloud/splunk-on-call/alerts/incident-fields-glossary>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::call_json;
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check::{all, path_part};
use super::event::{Action, Level, Page, labels};
use super::plain::{Plain, neutral};
use crate::alert::delivery::outbound::{Answer, Outbound};
use crate::alert::delivery::story::Story;

const NAME: &str = "splunk_on_call";
const HOST: &str = "alert.victorops.com";
/// The path of the integration "REST – Generic".
const PATH: &str = "/integrations/generic/20131114/alert";
/// The most characters of the title in lists.
const TITLE_CHARS: usize = 250;
/// The most characters of `state_message`. Prometheus Alertmanager has the same limit.
const MESSAGE_CHARS: usize = 20_480;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplunkSettings {
    api_key: String,
    routing_key: String,
}

/// The kind `splunk_on_call`.
pub struct SplunkOnCall;

impl Kind for SplunkOnCall {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: SplunkSettings = read(settings)?;
        all([
            path_part("api_key", &settings.api_key, 100),
            path_part("routing_key", &settings.routing_key, 100),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["api_key"]
    }

    fn host(&self, _settings: &Settings) -> Option<String> {
        Some(HOST.to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(SplunkSender {
            outbound: parts.outbound.clone(),
            api: format!("https://{HOST}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct SplunkSender {
    outbound: Outbound,
    api: String,
}

impl SplunkSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(SplunkSettings { api_key, routing_key }) = outgoing.settings.read() else {
            return misfit(NAME);
        };
        let url = format!("{}{PATH}/{api_key}/{routing_key}", self.api);
        let body = event(&outgoing, &Page::of(&outgoing));
        let answer = call_json(&self.outbound, Method::POST, &url, &[], &body).await;
        match judge(answer, &outgoing, &[]).and_then(|answer| accepted(&outgoing, answer)) {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => outcome,
        }
    }
}

/// Checks the body of an answer with 200, which may report a failure.
fn accepted(outgoing: &Outgoing, answer: Answer) -> Result<Answer, Outcome> {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match said["result"].as_str() {
        Some("success") | None => Ok(answer),
        Some(_) => Err(Outcome::Retry {
            reason: Reason::ClientError,
            code: Some(answer.status.into()),
            detail: format!(
                "the alert was not accepted: {}",
                outgoing.excerpt(&String::from_utf8_lossy(&answer.body), 200)
            ),
            retry_after: None,
        }),
    }
}

impl Sender for SplunkSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

fn event(outgoing: &Outgoing, page: &Page) -> Value {
    let message = &outgoing.message;
    let story = Story::of(message);
    let mut event = json!({
        "message_type": match (page.action, page.level) {
            (Action::Acknowledge, _) => "ACKNOWLEDGEMENT",
            (Action::Resolve, _) => "RECOVERY",
            (Action::Trigger, Level::Critical) => "CRITICAL",
            (Action::Trigger, Level::Warning) => "WARNING",
            (Action::Trigger, Level::Info) => "INFO",
        },
        "entity_id": page.key,
        "entity_display_name": Plain.escape(&cut(&story.headline, TITLE_CHARS)),
        "state_message": render(&story, &Plain, Content::All, MESSAGE_CHARS),
        "state_start_time": message.incident().map_or(message.at, |incident| incident.opened_at).timestamp(),
        "monitoring_tool": "Deadbeat",
    });
    for (name, value) in labels(message, page) {
        event[format!("deadbeat_{name}")] = json!(neutral(&value));
    }
    // Annotations of the type URL: their names are the texts of the links.
    if let Some(link) = &story.link {
        event["vo_annotate.u.Open in Deadbeat"] = json!(link);
    }
    if let Some(cause) = &story.cause {
        event["vo_annotate.u.What this means"] = json!(cause.url);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use deadbeat_domain::alert::message::{Message, Phase};
    use deadbeat_testkit::{Receiver, Reply};

    use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
    use crate::alert::outbox::samples::{self, Sample};

    const INCIDENT: &str = "0198c0de-0000-7000-8000-000000000003";
    const KEY: &str = "558e7ebc-0123-4567-89ab-cdef01234567";

    fn settings() -> Value {
        json!({"api_key": KEY, "routing_key": "database"})
    }

    fn sender(receiver: &Receiver) -> SplunkSender {
        SplunkSender {
            outbound: outbound(),
            api: receiver.url(""),
        }
    }

    async fn receiver() -> Receiver {
        Receiver::answering(Reply::status(200).body(r#"{"result":"success","entity_id":"x"}"#)).await
    }

    const SENT: Outcome = Outcome::Sent {
        code: Some(200),
        handle: None,
    };

    /// Checks the form by the pages named at the top of the module.
    pub(super) async fn conforms() {
        let receiver = receiver().await;
        let sender = sender(&receiver);
        for message in samples::all() {
            assert_eq!(
                sender.send(outgoing(NAME, &settings(), message.clone())).await,
                SENT
            );

            let request = last(&receiver);
            assert_eq!(request.method, "POST");
            assert_eq!(request.path, format!("{PATH}/{KEY}/database"));
            check_form(&last_json(&receiver), &message);
        }
        let attempt = || outgoing(NAME, &settings(), samples::test());
        failures(&receiver, &sender, attempt, &[]).await;
        receiver.then(Reply::status(200).body(r#"{"result":"failure","messages":["no"]}"#));
        let refused = sender.send(attempt()).await;
        assert_eq!(refused.reason(), Some(Reason::ClientError));
        assert!(
            matches!(refused, Outcome::Retry { code: Some(200), .. }),
            "{refused:?}"
        );
        // The key is a part of the path, which answers repeat.
        receiver.then(Reply::status(404).body(format!("no such key: {KEY}")));
        let refused = sender.send(attempt()).await;
        assert!(!format!("{refused:?}").contains(KEY), "{refused:?}");
    }

    #[tokio::test]
    async fn an_incident_is_one_incident() {
        let receiver = receiver().await;
        let sender = sender(&receiver);
        for (phase, kind) in [
            (Phase::Opened, "CRITICAL"),
            (Phase::Acknowledged, "ACKNOWLEDGEMENT"),
            (Phase::Reminder, "CRITICAL"),
            (Phase::Escalated, "CRITICAL"),
            (Phase::Resolved, "RECOVERY"),
        ] {
            let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");

            assert_eq!(sender.send(outgoing(NAME, &settings(), message)).await, SENT);

            let body = last_json(&receiver);
            assert_eq!(
                (&body["message_type"], &body["entity_id"]),
                (&json!(kind), &json!(INCIDENT))
            );
        }
        for (message, kind) in [
            (samples::test(), "INFO"),
            (samples::disabled(), "WARNING"),
            (samples::blind(), "WARNING"),
        ] {
            sender.send(outgoing(NAME, &settings(), message)).await;
            assert_eq!(last_json(&receiver)["message_type"], kind);
        }
    }

    #[test]
    fn texts_from_outside_hold_no_tags_and_no_mentions() {
        let mut sample = Sample::monitor();
        let evil = "<a href=\"https://evil.example\">click</a> @everyone vo_annotate.u.x";
        sample.incident.summary = evil.repeat(400);
        sample.incident.subject.name = evil.to_owned();
        let outgoing = outgoing(NAME, &settings(), sample.opened());

        let body = event(&outgoing, &Page::of(&outgoing));

        check_form(&body, &outgoing.message);
        assert!(!body.to_string().contains('<'), "{body}");
        assert!(!body["state_message"].as_str().unwrap().contains('@'), "{body}");
    }

    #[test]
    fn settings_hold_two_keys() {
        for (settings, is_good) in [
            (settings(), true),
            (json!({"api_key": KEY, "routing_key": "a/b"}), false),
            (json!({"api_key": KEY, "routing_key": ""}), false),
            (json!({"api_key": "a?b=", "routing_key": "database"}), false),
            (json!({"api_key": "..", "routing_key": "database"}), false),
            (json!({"api_key": KEY}), false),
            (json!({"routing_key": "database"}), false),
            (json!({"api_key": 7, "routing_key": "database"}), false),
            (json!({}), false),
        ] {
            let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
            let checked = SplunkOnCall.check_new(&settings);
            assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
            assert!(!format!("{checked:?}").contains(KEY));
        }
    }

    /// Every field has the type and the limits of Splunk's glossary.
    fn check_form(body: &Value, message: &Message) {
        let story = Story::of(message);
        let kinds = ["CRITICAL", "WARNING", "INFO", "ACKNOWLEDGEMENT", "RECOVERY"];
        assert!(kinds.contains(&body["message_type"].as_str().unwrap()));
        assert!(!body["entity_id"].as_str().unwrap().is_empty());
        assert!((1..=250).contains(&body["entity_display_name"].as_str().unwrap().chars().count()));
        assert!((1..=20_480).contains(&body["state_message"].as_str().unwrap().chars().count()));
        assert!(body["state_start_time"].as_i64().unwrap() > 1_700_000_000);
        assert_eq!(
            body["vo_annotate.u.Open in Deadbeat"].as_str(),
            story.link.as_deref()
        );
        let annotations = body
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| name.starts_with("vo_annotate"));
        assert!(annotations.count() <= 2);
    }
}
