//! incident.io, by an alert source of the type HTTP.
//!
//! One incident is one alert: the deduplication key is the incident's id. The API has no acknowledgement, so Deadbeat sends nothing for one.
//! A test fires an alert and resolves it at once.
//!
//! Sources: <https://docs.incident.io/api-reference/alert-events-v2/createhttp>, and for the token in the header
//! <https://prometheus.io/docs/alerting/latest/configuration/#incidentio_config>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_token};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check::{all, path_part};
use super::event::{Action, Page, labels, nothing_to_do};
use super::markdown::Markdown;
use super::plain::{Plain, neutral};
use crate::alert::delivery::outbound::{Answer, Outbound};
use crate::alert::delivery::story::Story;

const NAME: &str = "incident_io";
const HOST: &str = "api.incident.io";
/// The most characters of texts. incident.io documents no limits; its pages show much longer texts than these.
const TITLE_CHARS: usize = 250;
const DESCRIPTION_BYTES: usize = 10_000;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct IncidentIoSettings {
    alert_source_id: String,
    token: String,
}

/// The kind `incident_io`.
pub struct IncidentIo;

impl Kind for IncidentIo {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: IncidentIoSettings = read(settings)?;
        all([
            path_part("alert_source_id", &settings.alert_source_id, 100),
            check_token("token", &settings.token, 500),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token"]
    }

    fn host(&self, _settings: &Settings) -> Option<String> {
        Some(HOST.to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(IncidentIoSender {
            outbound: parts.outbound.clone(),
            api: format!("https://{HOST}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct IncidentIoSender {
    outbound: Outbound,
    api: String,
}

impl IncidentIoSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<IncidentIoSettings>() else {
            return misfit(NAME);
        };
        let page = Page::of(&outgoing);
        let status = match page.action {
            Action::Trigger => "firing",
            Action::Acknowledge => return nothing_to_do(),
            Action::Resolve => "resolved",
        };
        let ended = match self.send_status(&outgoing, &settings, &page, status).await {
            Ok(answer) if page.is_test => self
                .send_status(&outgoing, &settings, &page, "resolved")
                .await
                .map(|_| answer),
            ended => ended,
        };
        match ended {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => outcome,
        }
    }

    async fn send_status(
        &self,
        outgoing: &Outgoing,
        settings: &IncidentIoSettings,
        page: &Page,
        status: &str,
    ) -> Result<Answer, Outcome> {
        let url = format!("{}/v2/alert_events/http/{}", self.api, settings.alert_source_id);
        let authorization = format!("Bearer {}", settings.token);
        let headers = [("authorization", authorization.as_str())];
        let body = event(outgoing, page, status);
        let answer = call_json(&self.outbound, Method::POST, &url, &headers, &body).await;
        judge(answer, outgoing, &[])
    }
}

impl Sender for IncidentIoSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

fn event(outgoing: &Outgoing, page: &Page, status: &str) -> Value {
    let story = Story::of(&outgoing.message);
    let metadata: Map<String, Value> = labels(&outgoing.message, page)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(neutral(&value))))
        .collect();
    let mut event = json!({
        "title": Plain.escape(&cut(&story.headline, TITLE_CHARS)),
        "description": render(&story, &Markdown, Content::WithoutHeadline, DESCRIPTION_BYTES),
        "deduplication_key": page.key,
        "status": status,
        "metadata": metadata,
    });
    if let Some(link) = &story.link {
        event["source_url"] = json!(link);
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

    fn settings() -> Value {
        json!({"alert_source_id": "01GW2G3V0S59R238FAHPDS1R66", "token": "some-random-string"})
    }

    fn sender(receiver: &Receiver) -> IncidentIoSender {
        IncidentIoSender {
            outbound: outbound(),
            api: receiver.url(""),
        }
    }

    async fn receiver() -> Receiver {
        let answer = r#"{"deduplication_key":"unique-key","message":"Event accepted for processing","status":"success"}"#;
        Receiver::answering(Reply::status(202).body(answer)).await
    }

    const SENT: Outcome = Outcome::Sent {
        code: Some(202),
        handle: None,
    };

    /// Checks the form by the page named at the top of the module.
    pub(super) async fn conforms() {
        let receiver = receiver().await;
        let sender = sender(&receiver);
        let alerted = samples::all()
            .into_iter()
            .filter(|message| message.alert() != deadbeat_domain::alert::Alert::Acknowledged);
        for message in alerted {
            let before = receiver.requests().len();

            assert_eq!(
                sender.send(outgoing(NAME, &settings(), message.clone())).await,
                SENT
            );

            let requests = receiver.requests().split_off(before);
            let request = &requests[0];
            assert_eq!(
                (request.method.as_str(), request.path.as_str()),
                ("POST", "/v2/alert_events/http/01GW2G3V0S59R238FAHPDS1R66")
            );
            assert_eq!(request.header("authorization"), Some("Bearer some-random-string"));
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            check_form(&body, &message);
            if message == samples::test() {
                let end = last_json(&receiver);
                assert_eq!(requests.len(), 2);
                assert_eq!(end["status"], "resolved");
                assert_eq!(end["deduplication_key"], body["deduplication_key"]);
            } else {
                assert_eq!(requests.len(), 1);
            }
        }
        let attempt = || outgoing(NAME, &settings(), samples::test());
        failures(&receiver, &sender, attempt, &[]).await;
    }

    #[tokio::test]
    async fn an_incident_is_one_alert() {
        let receiver = receiver().await;
        let sender = sender(&receiver);
        for (phase, status) in [
            (Phase::Opened, Some("firing")),
            (Phase::Acknowledged, None),
            (Phase::Reminder, Some("firing")),
            (Phase::Escalated, Some("firing")),
            (Phase::Resolved, Some("resolved")),
        ] {
            let before = receiver.requests().len();
            let message = Sample::monitor().message(phase, "2026-01-02T03:04:05Z");

            let outcome = sender.send(outgoing(NAME, &settings(), message)).await;

            let requests = receiver.requests().len() - before;
            match status {
                Some(status) => {
                    let body = last_json(&receiver);
                    assert_eq!((outcome, requests), (SENT, 1));
                    assert_eq!(
                        (&body["status"], &body["deduplication_key"]),
                        (&json!(status), &json!(INCIDENT))
                    );
                }
                None => assert_eq!((outcome, requests), (nothing_to_do(), 0)),
            }
        }
        assert!(last(&receiver).path.starts_with("/v2/"));
    }

    #[test]
    fn texts_from_outside_are_no_markup() {
        let mut sample = Sample::monitor();
        let evil = "<!channel> [click](https://evil.example) ![x](https://evil.example/x) @everyone **b**";
        sample.incident.summary = evil.to_owned();
        sample.incident.subject.name = evil.to_owned();
        let outgoing = outgoing(NAME, &settings(), sample.opened());

        let body = event(&outgoing, &Page::of(&outgoing), "firing");

        check_form(&body, &outgoing.message);
        let title = body["title"].as_str().unwrap();
        assert!(!title.contains('<') && !title.contains('@'), "{title}");
        let description = body["description"].as_str().unwrap();
        for forbidden in ["<!", "[click]", "https://evil", "@everyone", " **b"] {
            assert!(!description.contains(forbidden), "{description}");
        }
    }

    #[test]
    fn settings_hold_a_source_and_its_token() {
        for (settings, is_good) in [
            (settings(), true),
            (json!({"alert_source_id": "a/../b", "token": "t0"}), false),
            (json!({"alert_source_id": "", "token": "t0"}), false),
            (
                json!({"alert_source_id": "01GW", "token": "t0\nX-Evil: 1"}),
                false,
            ),
            (json!({"alert_source_id": "01GW"}), false),
            (json!({"token": "t0"}), false),
            (json!({"alert_source_id": "01GW", "token": 7}), false),
            (json!({}), false),
        ] {
            let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
            let checked = IncidentIo.check_new(&settings);
            assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
            assert!(!format!("{checked:?}").contains("X-Evil"));
        }
    }

    /// Every field has the type of incident.io's reference.
    fn check_form(body: &Value, message: &Message) {
        let story = Story::of(message);
        let resolved = message.alert() == deadbeat_domain::alert::Alert::Resolved;
        assert_eq!(body["status"], if resolved { "resolved" } else { "firing" });
        assert!((1..=250).contains(&body["title"].as_str().unwrap().chars().count()));
        assert!((1..=10_000).contains(&body["description"].as_str().unwrap().len()));
        assert!(!body["deduplication_key"].as_str().unwrap().is_empty());
        assert!(
            body["metadata"]
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_string)
        );
        assert_eq!(body["source_url"].as_str(), story.link.as_deref());
        for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
            assert!(
                body["description"]
                    .as_str()
                    .unwrap()
                    .contains(&format!("```\n{command}\n```"))
            );
        }
    }
}
