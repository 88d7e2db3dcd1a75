//! Signal, by a signal-cli REST API server of the team.
//!
//! Each alert is a new message. Signal could change a message, but a change makes no sound, and phones ignore a late
//! change without an answer to the sender: a person could miss an alert.
//!
//! Sources: <https://bbernhard.github.io/signal-cli-rest-api/> (`POST /v2/send`), and of
//! <https://github.com/bbernhard/signal-cli-rest-api> `src/api/api.go`, `SendV2` and `getRecipientType` in
//! `src/client/client.go` for the recipients, and the README for `DEFAULT_SIGNAL_TEXT_MODE`.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::chat::{all, below, check_base, odd, said};
use super::super::http::{call_json, check_new_url, check_reach, check_token, check_url, host_of};
use super::super::markup::{Content, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::plain::BYTES;
use super::{basic, check_number};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "signal";
/// The most bytes of a message. Signal makes a file of a longer text.
const MESSAGE_BYTES: usize = 2_000;
/// The most recipients. The server sends to them one after the other, within the limit of an attempt.
const RECIPIENTS: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalSettings {
    url: String,
    number: String,
    recipients: Vec<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The kind `signal`.
pub struct Signal;

/// What a recipient is. The server sends one message to recipients of one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A phone number, or the UUID of an account.
    Account,
    /// A user name with its digits.
    Name,
    /// A group.
    Group,
}

impl Form {
    /// None: the text is no recipient.
    fn of(recipient: &str) -> Option<Self> {
        let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if let Some(group) = recipient.strip_prefix("group.") {
            let is_group = (1..=200).contains(&group.len()) && group.bytes().all(is_base64);
            return is_group.then_some(Self::Group);
        }
        let is_uuid = recipient.len() == 36 && uuid::Uuid::try_parse(recipient).is_ok();
        if is_uuid || check_number("", recipient).is_ok() {
            return Some(Self::Account);
        }
        let (name, digits) = recipient.split_once('.')?;
        let is_name = (3..=32).contains(&name.len())
            && name.bytes().all(is_word)
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && (2..=9).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit());
        is_name.then_some(Self::Name)
    }
}

/// Checks a recipient, and returns its form.
fn check_recipient(index: usize, recipient: &str) -> Result<Form, FieldError> {
    Form::of(recipient).ok_or_else(|| {
        FieldError::new(
            format!("/settings/recipients/{index}"),
            "is no phone number such as \"+4366412345678\", no user name such as \"alice.01\", no UUID and no group such as \"group.…\"",
        )
    })
}

fn check_recipients(recipients: &[String]) -> Result<(), FieldError> {
    if !(1..=RECIPIENTS).contains(&recipients.len()) {
        return Err(FieldError::new(
            "/settings/recipients",
            format!("has not 1 to {RECIPIENTS} items"),
        ));
    }
    let forms = recipients
        .iter()
        .enumerate()
        .map(|(index, recipient)| check_recipient(index, recipient))
        .collect::<Result<Vec<_>, _>>()?;
    let is_one_form = forms.iter().all(|form| *form == forms[0]);
    if is_one_form && (forms.len() == 1 || forms[0] != Form::Group) {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/recipients",
        "are not phone numbers and UUIDs only, not user names only, and not one group: the server sends to no mixture in one message",
    ))
}

/// Checks the login of a proxy before the server, which has none itself.
fn check_login(settings: &SignalSettings) -> Result<(), FieldError> {
    match (&settings.username, &settings.password) {
        (Some(username), Some(password)) => {
            check_token("username", username, 200)?;
            if username.contains(':') {
                return Err(FieldError::new("/settings/username", "holds a colon"));
            }
            check_token("password", password, 200)
        }
        (None, None) => Ok(()),
        _ => Err(FieldError::new(
            "/settings",
            "holds only one of username and password",
        )),
    }
}

impl Signal {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: SignalSettings = read(settings)?;
        all([
            address("url", &settings.url).and_then(|()| check_base("url", &settings.url)),
            check_number("number", &settings.number),
            check_recipients(&settings.recipients),
            check_login(&settings),
        ])
    }
}

impl Kind for Signal {
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
        &["password"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(SignalSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct SignalSender {
    outbound: Outbound,
}

impl SignalSender {
    async fn attempt(&self, outgoing: &Outgoing) -> Result<Outcome, Outcome> {
        let Ok(settings) = outgoing.settings.read::<SignalSettings>() else {
            return Err(misfit(NAME));
        };
        let Some(url) = below(&settings.url, &["v2", "send"]) else {
            return Err(misfit(NAME));
        };
        let login = match (&settings.username, &settings.password) {
            (Some(username), Some(password)) => Some(basic(username, password)),
            _ => None,
        };
        let headers: Vec<_> = login
            .iter()
            .map(|login| ("authorization", login.as_str()))
            .collect();
        let body = message(outgoing, &settings);
        let answer = call_json(&self.outbound, Method::POST, url.as_str(), &headers, &body).await;
        let said = said(&answer);
        let answer = judge(answer, outgoing, &[])?;
        if said["timestamp"].is_string() || said["timestamp"].is_u64() {
            Ok(sent(&answer, None))
        } else {
            Err(odd(&answer, outgoing))
        }
    }
}

impl Sender for SignalSender {
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

fn message(outgoing: &Outgoing, settings: &SignalSettings) -> Value {
    let story = Story::of(&outgoing.message);
    json!({
        "number": settings.number,
        "recipients": settings.recipients,
        "message": render(&story, &BYTES, Content::All, MESSAGE_BYTES),
        // The operator of the server may have set another mode for requests that name none.
        "text_mode": "normal",
    })
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::delivery::Reason;
    use deadbeat_domain::alert::message::Message;
    use deadbeat_testkit::{Receiver, Reply};

    use super::super::super::chat::proofs::{EVIL, huge, of_text, settings_are};
    use super::super::super::conformance::{failures, last, last_json, outbound, outgoing};
    use super::super::proofs;
    use super::*;
    use crate::alert::outbox::samples;

    const SENT: Outcome = Outcome::Sent {
        code: Some(201),
        handle: None,
    };
    const GROUP: &str = "group.ckRzaEd4VmRzNnJaASAEsasa=";

    fn sender() -> SignalSender {
        SignalSender { outbound: outbound() }
    }

    fn ok() -> Reply {
        Reply::status(201).body(r#"{"timestamp":"1637075142127"}"#)
    }

    /// Checks the form by the pages named at the top of the module.
    pub(super) async fn conforms() {
        let receiver = Receiver::answering(ok()).await;
        let url = receiver.url("/signal/");
        let with_login = json!({"url": url, "number": "+431212131491291", "recipients": [GROUP],
            "username": "Aladdin", "password": "open:S3CRET"});
        let without = json!({"url": url, "number": "+431212131491291", "recipients": ["+4354546464654", "0198c0de-0000-7000-8000-000000000003"]});
        for (settings, authorization) in [
            (&without, None),
            (&with_login, Some("Basic QWxhZGRpbjpvcGVuOlMzQ1JFVA==")),
        ] {
            for message in proofs::samples() {
                let outcome = sender().send(outgoing(NAME, settings, message.clone())).await;

                assert_eq!(outcome, SENT);
                let request = last(&receiver);
                assert_eq!(
                    (request.method.as_str(), request.path.as_str()),
                    ("POST", "/signal/v2/send")
                );
                assert_eq!(request.header("authorization"), authorization);
                let body = last_json(&receiver);
                assert_eq!(body["number"], "+431212131491291");
                assert_eq!(body["recipients"], settings["recipients"]);
                check_form(&body, &message);
            }
        }
        let attempt = || outgoing(NAME, &with_login, samples::test());
        failures(&receiver, &sender(), attempt, &[]).await;
        receiver.then(Reply::status(400).body(r#"{"error":"Unregistered user, open:S3CRET"}"#));
        let outcome = sender().send(attempt()).await;
        let Outcome::Retry { reason, detail, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(reason, Reason::ClientError);
        assert_eq!(detail, r#"answered 400: {"error":"Unregistered user, …"}"#);
        for body in ["<html>hello</html>", "{}"] {
            receiver.then(Reply::status(200).body(body));
            let outcome = sender().send(attempt()).await;
            assert!(
                matches!(
                    outcome,
                    Outcome::Retry {
                        reason: Reason::ClientError,
                        ..
                    }
                ),
                "{body}"
            );
        }
    }

    /// Every field has the type and the values of `api.SendMessageV2`.
    fn check_form(body: &Value, message: &Message) {
        let story = Story::of(message);
        assert_eq!(body.as_object().unwrap().len(), 4);
        assert_eq!(body["text_mode"], "normal");
        let text = body["message"].as_str().unwrap();
        assert!((1..=2_000).contains(&text.len()), "{}", text.len());
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
        for (label, url) in [
            ("Acknowledge", &story.acknowledge),
            ("Open in Deadbeat", &story.link),
        ] {
            if let Some(url) = url {
                assert!(text.contains(&format!("{label}: {url}")), "{text}");
            }
        }
        for command in story.steps.iter().filter_map(|step| step.command.as_ref()) {
            // A command with an address would be a link.
            let expected = if command.contains("://") {
                "(the command is on the page of the incident)".to_owned()
            } else {
                format!("    {command}")
            };
            assert!(text.contains(&expected), "{text}");
        }
        if let Some(member) = story.members.first() {
            assert!(
                text.contains(&format!("{}\n• {member}\n", story.members_title())),
                "{text}"
            );
        }
    }

    #[test]
    fn texts_from_outside_make_no_links_and_keep_the_limits() {
        let settings = SignalSettings {
            url: String::new(),
            number: String::new(),
            recipients: Vec::new(),
            username: None,
            password: None,
        };
        for message in huge().into_iter().chain([of_text(EVIL)]) {
            let body = self::message(&outgoing(NAME, &json!({}), message.clone()), &settings);

            let text = body["message"].as_str().unwrap();
            assert!((1..=2_000).contains(&text.len()), "{}", text.len());
            for forbidden in ["https://evil", "www.evil"] {
                assert!(!text.contains(forbidden), "{text}");
            }
        }
    }

    #[test]
    fn settings_hold_a_number_and_recipients() {
        let with = |more: Value| {
            let mut settings = json!({"url": "http://signal.example.org:8080", "number": "+431212131491291", "recipients": [GROUP]});
            for (field, value) in more.as_object().unwrap() {
                settings[field] = value.clone();
            }
            settings
        };
        let uuid = "0198c0de-0000-7000-8000-000000000003";
        settings_are(
            &Signal,
            &[
                (with(json!({})), true),
                (with(json!({"recipients": ["+4354546464654", uuid]})), true),
                (with(json!({"recipients": ["alice.01", "Bob_2.123"]})), true),
                (with(json!({"recipients": vec![uuid; 10]})), true),
                (with(json!({"username": "a", "password": "S3CRET"})), true),
                (with(json!({"recipients": vec![uuid; 11]})), false),
                (with(json!({"recipients": [GROUP, GROUP]})), false),
                (with(json!({"recipients": [GROUP, uuid]})), false),
                (with(json!({"recipients": ["+4354546464654", "alice.01"]})), false),
                (with(json!({"recipients": ["u:alice.01"]})), false),
                (with(json!({"recipients": ["alice.1"]})), false),
                (with(json!({"recipients": ["1lice.01"]})), false),
                (with(json!({"recipients": []})), false),
                (with(json!({"recipients": GROUP})), false),
                (with(json!({"recipients": ["alice"]})), false),
                (with(json!({"recipients": ["group.\n"]})), false),
                (with(json!({"recipients": ["group."]})), false),
                (with(json!({"recipients": ["+43 664"]})), false),
                (with(json!({"recipients": [""]})), false),
                (with(json!({"number": "0664123456"})), false),
                (with(json!({"username": "a"})), false),
                (with(json!({"password": "S3CRET"})), false),
                (with(json!({"username": "a:b", "password": "S3CRET"})), false),
                (with(json!({"url": "https://u:S3CRET@signal.example.org"})), false),
                (
                    json!({"number": "+431212131491291", "recipients": [GROUP]}),
                    false,
                ),
                (json!({}), false),
            ],
        );
    }
}
