//! An Apprise API server, which passes messages on to about 150 services.
//!
//! A channel names either a configuration that the server keeps (`key`), or the URLs of services (`urls`). The text
//! is plain, because each service has its own markup, which Apprise knows. Apprise cannot change messages, so each
//! alert is a new message.
//!
//! Sources: <https://appriseit.com/api/endpoints>, <https://appriseit.com/api/reference/response-codes/>,
//! <https://github.com/caronc/apprise-api/blob/master/README.md>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_new_url, check_reach, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check::{Address, all, below, path_part, server};
use super::event::{Level, Page};
use super::plain::Plain;
use crate::alert::delivery::outbound::{Answer, Outbound};
use crate::alert::delivery::story::{Story, Tone};

const NAME: &str = "apprise";
/// The most characters of a title. Apprise cuts texts to the limits of each service; most services show this much.
const TITLE_CHARS: usize = 200;
const BODY_CHARS: usize = 4_000;
/// The most characters of `urls`.
const URLS_CHARS: usize = 4_000;

/// Settings: either `key`, and perhaps `tag`, or `urls`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppriseSettings {
    url: String,
    key: Option<String>,
    tag: Option<String>,
    urls: Option<String>,
}

/// The way in which the server finds the services.
enum Way {
    Kept { key: String, tag: Option<String> },
    Given { urls: String },
}

impl AppriseSettings {
    fn way(self) -> Result<Way, FieldError> {
        match (self.key, self.tag, self.urls) {
            (Some(key), tag, None) => Ok(Way::Kept { key, tag }),
            (None, None, Some(urls)) => Ok(Way::Given { urls }),
            _ => Err(FieldError::new(
                "/settings",
                "holds neither key, perhaps with tag, nor urls alone; one of the two ways is allowed",
            )),
        }
    }
}

/// The kind `apprise`.
pub struct Apprise;

impl Apprise {
    fn check_with(settings: &Settings, address: Address) -> Result<(), Vec<FieldError>> {
        let settings: AppriseSettings = read(settings)?;
        let url = server("url", &settings.url, address);
        match settings.way() {
            // README: a key has 1 to 64 letters, digits, `_` and `-`.
            Ok(Way::Kept { key, tag }) => all([
                url,
                path_part("key", &key, 64),
                tag.map_or(Ok(()), |tag| check_line("tag", &tag, 200)),
            ]),
            Ok(Way::Given { urls }) => all([url, check_line("urls", &urls, URLS_CHARS)]),
            Err(fault) => all([url, Err(fault)]),
        }
    }
}

/// Checks a text of the settings, which may be a secret.
fn check_line(field: &str, text: &str, most: usize) -> Result<(), FieldError> {
    let is_line = text
        .chars()
        .all(|c| c == ' ' || !(c.is_whitespace() || c.is_control()));
    if is_line && !text.trim().is_empty() && text.chars().count() <= most {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        format!("is not one line of 1 to {most} characters"),
    ))
}

impl Kind for Apprise {
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
        &["key", "urls"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(AppriseSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct AppriseSender {
    outbound: Outbound,
}

impl AppriseSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<AppriseSettings>() else {
            return misfit(NAME);
        };
        let server = settings.url.clone();
        let mut body = notification(&outgoing);
        let url = match settings.way() {
            Ok(Way::Kept { key, tag }) => {
                if let Some(tag) = tag {
                    body["tag"] = json!(tag);
                }
                below(&server, &format!("/notify/{key}"))
            }
            Ok(Way::Given { urls }) => {
                body["urls"] = json!(urls);
                below(&server, "/notify/")
            }
            Err(_) => return misfit(NAME),
        };
        let headers = [("accept", "application/json")];
        let answer = call_json(&self.outbound, Method::POST, &url, &headers, &body).await;
        match judge(answer, &outgoing, &[]).and_then(notified) {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => outcome,
        }
    }
}

/// Refuses 204, with which Apprise says that it found nobody to notify.
fn notified(answer: Answer) -> Result<Answer, Outcome> {
    if answer.status != 204 {
        return Ok(answer);
    }
    Err(Outcome::Retry {
        reason: Reason::ClientError,
        code: Some(204),
        detail: "answered 204: the server knows no service under this key, or none of the URLs is valid"
            .to_owned(),
        retry_after: None,
    })
}

impl Sender for AppriseSender {
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

fn notification(outgoing: &Outgoing) -> Value {
    let story = Story::of(&outgoing.message);
    json!({
        "title": Plain.escape(&cut(&story.headline, TITLE_CHARS)),
        "body": render(&story, &Plain, Content::WithoutHeadline, BODY_CHARS),
        "type": match (story.tone, Page::of(outgoing).level) {
            (Tone::Good, _) => "success",
            (_, Level::Critical) => "failure",
            (_, Level::Warning) => "warning",
            (_, Level::Info) => "info",
        },
        "format": "text",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use deadbeat_domain::alert::message::{Message, Phase};
    use deadbeat_testkit::{Receiver, Reply};

    use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
    use crate::alert::outbox::samples::{self, Sample};

    fn sender() -> AppriseSender {
        AppriseSender { outbound: outbound() }
    }

    const SENT: Outcome = Outcome::Sent {
        code: Some(200),
        handle: None,
    };

    /// Checks the form by the pages named at the top of the module.
    pub(super) async fn conforms() {
        let receiver = Receiver::start().await;
        let url = receiver.url("/apprise/");
        let urls = "mailto://user:pass@example.org, json://localhost";
        for (settings, path) in [
            (json!({"url": url, "key": "deadbeat"}), "/apprise/notify/deadbeat"),
            (
                json!({"url": url, "key": "deadbeat", "tag": "devops"}),
                "/apprise/notify/deadbeat",
            ),
            (json!({"url": url, "urls": urls}), "/apprise/notify/"),
        ] {
            for message in samples::all() {
                let outcome = sender().send(outgoing(NAME, &settings, message.clone())).await;

                assert_eq!(outcome, SENT);
                let (request, body) = (last(&receiver), last_json(&receiver));
                assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", path));
                assert!(
                    request
                        .header("content-type")
                        .unwrap()
                        .starts_with("application/json")
                );
                for field in ["tag", "urls"] {
                    assert_eq!(body.get(field), settings.get(field));
                }
                check_form(&body, &message);
            }
        }
        let settings = json!({"url": url, "key": "deadbeat"});
        let attempt = || outgoing(NAME, &settings, samples::test());
        failures(&receiver, &sender(), attempt, &[]).await;
        for status in [204, 424, 431] {
            receiver.then(Reply::status(status));
            let outcome = sender().send(attempt()).await;
            assert!(
                matches!(&outcome, Outcome::Retry { reason: Reason::ClientError, code, .. } if *code == Some(i32::from(status))),
                "{outcome:?}"
            );
        }
    }

    /// Each alert is a message, in the colour of its event.
    #[tokio::test]
    async fn each_alert_has_its_type() {
        let receiver = Receiver::start().await;
        let settings = json!({"url": receiver.url(""), "key": "deadbeat"});
        let of = |phase| Sample::monitor().message(phase, "2026-01-02T03:04:05Z");
        for (message, kind) in [
            (of(Phase::Opened), "failure"),
            (of(Phase::Acknowledged), "failure"),
            (of(Phase::Reminder), "failure"),
            (of(Phase::Escalated), "failure"),
            (of(Phase::Resolved), "success"),
            (samples::test(), "info"),
            (samples::disabled(), "warning"),
            (samples::blind(), "warning"),
        ] {
            assert_eq!(sender().send(outgoing(NAME, &settings, message)).await, SENT);
            assert_eq!(last_json(&receiver)["type"], kind);
        }
    }

    #[test]
    fn texts_from_outside_hold_no_tags_and_no_mentions() {
        let mut sample = Sample::monitor();
        let evil = "<!channel> <@U012> @everyone @bob <a href=\"https://evil.example\">click</a>";
        sample.incident.summary = evil.to_owned();
        sample.incident.subject.name = evil.to_owned();
        let message = sample.opened();

        let body = notification(&outgoing(NAME, &json!({}), message.clone()));

        check_form(&body, &message);
        assert!(!body.to_string().contains(['<', '@']), "{body}");
    }

    #[test]
    fn settings_hold_one_way() {
        let url = "https://apprise.example.org";
        for (settings, is_good) in [
            (json!({"url": url, "key": "deadbeat"}), true),
            (json!({"url": url, "key": "deadbeat", "tag": "devops, ops"}), true),
            (
                json!({"url": url, "urls": "json://localhost mailto://u:p@example.org"}),
                true,
            ),
            (json!({"url": url}), false),
            (
                json!({"url": url, "key": "deadbeat", "urls": "json://localhost"}),
                false,
            ),
            (
                json!({"url": url, "tag": "devops", "urls": "json://localhost"}),
                false,
            ),
            (json!({"url": url, "tag": "devops"}), false),
            (json!({"url": url, "key": "../add/x"}), false),
            (json!({"url": url, "key": "x".repeat(65)}), false),
            (json!({"url": url, "urls": ""}), false),
            (json!({"url": url, "urls": "json://secret-host\n"}), false),
            (
                json!({"url": url, "urls": format!("json://secret-host/{}", "x".repeat(4_000))}),
                false,
            ),
            (
                json!({"url": "https://u:p@apprise.example.org", "key": "deadbeat"}),
                false,
            ),
            (json!({"key": "deadbeat"}), false),
            (json!({}), false),
        ] {
            let settings = Settings::new(NAME, settings.as_object().unwrap().clone());
            let checked = Apprise.check_new(&settings);
            assert_eq!(checked.is_ok(), is_good, "{}: {checked:?}", settings.to_json());
            assert!(!format!("{checked:?}").contains("secret-host"));
            assert_eq!(Apprise.check(&settings).is_ok(), is_good);
        }
    }

    /// Every field has the values of Apprise's documentation.
    fn check_form(body: &Value, message: &Message) {
        let story = Story::of(message);
        assert!((1..=200).contains(&body["title"].as_str().unwrap().chars().count()));
        let text = body["body"].as_str().unwrap();
        assert!((1..=4_000).contains(&text.chars().count()));
        assert!(["info", "success", "warning", "failure"].contains(&body["type"].as_str().unwrap()));
        assert_eq!(body["format"], "text");
        if let Some(link) = &story.link {
            assert!(text.contains(&format!("Open in Deadbeat: {link}")), "{text}");
        }
        for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
            assert!(text.contains(&format!("    {command}")), "{text}");
        }
    }
}
