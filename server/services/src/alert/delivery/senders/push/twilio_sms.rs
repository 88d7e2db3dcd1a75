//! Text messages by Twilio. Nobody can change a text message, so each alert is a new one.
//!
//! Sources: <https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>,
//! <https://www.twilio.com/docs/api/errors/21658> for the length, and those of `twilio.rs`.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::super::answer::{misfit, sent};
use super::super::chat::all;
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check_number;
use super::twilio::{Account, HOST, check_sid};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "twilio_sms";
/// The most characters of a text message.
const BODY_CHARS: usize = 1_600;
/// The most characters of the headline and the summary. Twilio charges for each 153 characters.
const HEADLINE_CHARS: usize = 120;
const SUMMARY_CHARS: usize = 160;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TwilioSmsSettings {
    account_sid: String,
    api_key_sid: Option<String>,
    auth_token: String,
    from: Option<String>,
    messaging_service_sid: Option<String>,
    to: String,
}

impl TwilioSmsSettings {
    fn account(&self) -> Account<'_> {
        Account {
            sid: &self.account_sid,
            key: self.api_key_sid.as_deref(),
            token: &self.auth_token,
        }
    }
}

/// The kind `twilio_sms`.
pub struct TwilioSms;

/// Checks a sender: a phone number, a short code, or a name of at most 11 characters with a letter.
fn check_from(from: &str) -> Result<(), FieldError> {
    if from.starts_with('+') {
        return check_number("from", from);
    }
    let is_code = (3..=8).contains(&from.len()) && from.bytes().all(|b| b.is_ascii_digit());
    let is_name = (1..=11).contains(&from.len())
        && from.bytes().any(|b| b.is_ascii_alphabetic())
        && from.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ');
    if is_code || is_name {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/from",
        "is no phone number such as \"+4366412345678\", no short code, and no name of 1 to 11 letters, digits and spaces",
    ))
}

fn check_sender(settings: &TwilioSmsSettings) -> Result<(), FieldError> {
    match (&settings.from, &settings.messaging_service_sid) {
        (Some(from), None) => check_from(from),
        (None, Some(service)) => check_sid("messaging_service_sid", service, "MG"),
        _ => Err(FieldError::new(
            "/settings",
            "holds not exactly one of from and messaging_service_sid",
        )),
    }
}

impl Kind for TwilioSms {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: TwilioSmsSettings = read(settings)?;
        all([
            settings.account().check(),
            check_sender(&settings),
            check_number("to", &settings.to),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["auth_token"]
    }

    fn host(&self, _settings: &Settings) -> Option<String> {
        Some(HOST.to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(TwilioSmsSender {
            outbound: parts.outbound.clone(),
            api: format!("https://{HOST}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct TwilioSmsSender {
    outbound: Outbound,
    api: String,
}

impl TwilioSmsSender {
    async fn attempt(&self, outgoing: &Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<TwilioSmsSettings>() else {
            return misfit(NAME);
        };
        let mut form = vec![
            ("To", settings.to.clone()),
            ("Body", body(outgoing)),
            // Twilio replaces characters that would make the text longer by others of the same look.
            ("SmartEncoded", "true".to_owned()),
        ];
        form.extend(settings.from.clone().map(|from| ("From", from)));
        let service = settings.messaging_service_sid.clone();
        form.extend(service.map(|service| ("MessagingServiceSid", service)));
        let (account, api) = (settings.account(), &self.api);
        match account
            .post(&self.outbound, api, "Messages", &form, outgoing)
            .await
        {
            Ok((answer, _)) => sent(&answer, None),
            Err((_, outcome)) => outcome,
        }
    }
}

impl Sender for TwilioSmsSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.attempt(&outgoing).await })
    }
}

/// Text of a text message. Characters outside of the alphabet of GSM would more than double its length, so the text
/// from outside loses its links by spaces.
struct Sms;

impl Markup for Sms {
    fn escape(&self, text: &str) -> String {
        let text = text.replace("://", ": //").replace('…', "...");
        let mut plain = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.to_ascii_lowercase().find("www.") {
            plain.push_str(&rest[..at + 3]);
            plain.push(' ');
            rest = &rest[at + 3..];
        }
        plain + rest
    }

    fn bold(&self, escaped: &str) -> String {
        escaped.to_owned()
    }

    fn code(&self, _command: &str) -> Option<String> {
        None
    }

    fn link(&self, label: &str, url: &str) -> String {
        format!("{label}: {url}")
    }
}

/// Writes the headline, the summary, the number of affected monitors, and one link.
fn body(outgoing: &Outgoing) -> String {
    let mut story = Story::of(&outgoing.message);
    story.headline = cut(&story.headline, HEADLINE_CHARS);
    story.summary = story.summary.map(|summary| cut(&summary, SUMMARY_CHARS));
    story.facts.clear();
    let affected = story.members.len() + story.more_members;
    if affected > 1 {
        story.facts.push(("Affected", format!("{affected} monitors")));
    }
    story.steps.clear();
    story.evidence.clear();
    story.members.clear();
    story.more_members = 0;
    story.cause = None;
    if story.acknowledge.is_some() {
        story.link = None;
    }
    render(&story, &Sms, Content::All, BODY_CHARS)
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::delivery::Reason;
    use deadbeat_domain::alert::message::Message;
    use deadbeat_testkit::{Receiver, Reply};
    use serde_json::{Value, json};

    use super::super::super::chat::proofs::{EVIL, huge, of_text, settings_are};
    use super::super::super::conformance::{failures, last, outbound, outgoing};
    use super::super::proofs;
    use super::super::proofs::form_of;
    use super::super::twilio::PERMANENT;
    use super::*;
    use crate::alert::outbox::samples;

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const SENT: Outcome = Outcome::Sent {
        code: Some(201),
        handle: None,
    };

    fn settings() -> Value {
        json!({"account_sid": ACCOUNT, "auth_token": "S3CRETtoken", "from": "+15017122661", "to": "+15558675310"})
    }

    fn with(more: &Value) -> Value {
        let mut settings = settings();
        for (field, value) in more.as_object().unwrap() {
            match value {
                Value::Null => drop(settings.as_object_mut().unwrap().remove(field)),
                value => settings[field] = value.clone(),
            }
        }
        settings
    }

    fn sender(receiver: &Receiver) -> TwilioSmsSender {
        TwilioSmsSender {
            outbound: outbound(),
            api: receiver.url(""),
        }
    }

    /// Checks the form by the pages named at the top of the module.
    pub(super) async fn conforms() {
        let answer =
            json!({"sid": "SM1f0e8ae6ade43cb3c0ce4525424e404f", "status": "queued", "error_code": null});
        let receiver = Receiver::answering(Reply::status(201).body(answer.to_string())).await;
        let sender = sender(&receiver);
        let service = "MG0123456789abcdef0123456789abcdef";
        let key = "SK0123456789abcdef0123456789abcdef";
        for (settings, login) in [
            (settings(), format!("{ACCOUNT}:S3CRETtoken")),
            (
                with(&json!({"from": null, "messaging_service_sid": service, "api_key_sid": key})),
                format!("{key}:S3CRETtoken"),
            ),
        ] {
            let (name, password) = login.split_once(':').unwrap();
            for message in proofs::samples() {
                let outcome = sender.send(outgoing(NAME, &settings, message.clone())).await;

                assert_eq!(outcome, SENT);
                let request = last(&receiver);
                assert_eq!(request.method, "POST");
                assert_eq!(
                    request.path,
                    format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
                );
                assert_eq!(
                    request.header("authorization"),
                    Some(super::super::basic(name, password).as_str())
                );
                let form = form_of(&request);
                assert_eq!(form.len(), 4);
                assert_eq!(
                    (form["To"].as_str(), form["SmartEncoded"].as_str()),
                    ("+15558675310", "true")
                );
                assert_eq!(form.get("From").map(String::as_str), settings["from"].as_str());
                assert_eq!(
                    form.get("MessagingServiceSid").map(String::as_str),
                    settings["messaging_service_sid"].as_str()
                );
                check_body(&form["Body"], &message);
            }
        }
        let attempt = || outgoing(NAME, &settings(), samples::test());
        failures(&receiver, &sender, attempt, &[]).await;
        for code in PERMANENT {
            let status = if code == 20_003 { 401 } else { 400 };
            let error = json!({"code": code, "message": "no, S3CRETtoken", "status": status,
                "more_info": format!("https://www.twilio.com/docs/errors/{code}")});
            receiver.then(Reply::status(status).body(error.to_string()));
            let outcome = sender.send(attempt()).await;
            let Outcome::Failed { reason, detail, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(reason, Reason::of_status(status));
            assert_eq!(detail, format!("answered {status}: {code} no, …"));
        }
        let login = super::super::basic(ACCOUNT, "S3CRETtoken");
        receiver.then(Reply::status(500).body(format!("Authorization: {login}")));
        let outcome = sender.send(attempt()).await;
        assert!(
            matches!(&outcome, Outcome::Retry { detail, .. } if detail == "answered 500: Authorization: Basic …"),
            "{outcome:?}"
        );
        // Too many requests, and a route that Twilio has not now.
        for (status, code, reason) in [
            (429, 20_429, Reason::RateLimit),
            (400, 21_612, Reason::ClientError),
        ] {
            receiver.then(Reply::status(status).body(json!({"code": code, "message": "x"}).to_string()));
            let outcome = sender.send(attempt()).await;
            assert!(
                matches!(&outcome, Outcome::Retry { reason: found, .. } if *found == reason),
                "{outcome:?}"
            );
        }
        for body in ["<html>hello</html>", "{}"] {
            receiver.then(Reply::status(200).body(body));
            let outcome = sender.send(attempt()).await;
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

    fn check_body(body: &str, message: &Message) {
        let story = Story::of(message);
        assert!((1..=1_600).contains(&body.chars().count()), "{body}");
        assert!(!body.contains(|c: char| c.is_control() && c != '\n'), "{body}");
        let links = [
            ("Acknowledge", &story.acknowledge),
            ("Open in Deadbeat", &story.link),
        ];
        let expected = links
            .into_iter()
            .find_map(|(label, url)| Some(format!("\n\n{label}: {}", url.as_ref()?)));
        match expected {
            Some(link) => assert!(body.ends_with(&link), "{body}"),
            None => assert!(!body.contains("http"), "{body}"),
        }
        let affected = story.members.len() + story.more_members;
        assert_eq!(
            body.contains(&format!("Affected: {affected} monitors")),
            affected > 1,
            "{body}"
        );
        // A character outside of the alphabet of GSM would make 70 of 160 characters.
        assert!(body.is_ascii() || !story.headline.is_ascii(), "{body}");
    }

    #[test]
    fn texts_from_outside_make_no_links_and_keep_the_limits() {
        for message in huge().into_iter().chain([of_text(EVIL)]) {
            let outgoing = outgoing(NAME, &json!({}), message.clone());
            let body = body(&outgoing);

            assert!(body.chars().count() < 800, "{body}");
            assert!(body.contains("Open in Deadbeat: https://"), "{body}");
            for forbidden in ["https://evil", "www.evil"] {
                assert!(!body.contains(forbidden), "{body}");
            }
        }
        for (text, plain) in [
            ("see https://evil.example …", "see https: //evil.example ..."),
            ("WWW.evil www.x ÄÖwww.ß", "WWW .evil www .x ÄÖwww .ß"),
            ("shop.tasks.nightly", "shop.tasks.nightly"),
        ] {
            assert_eq!(Sms.escape(text), plain);
        }
    }

    #[test]
    fn settings_hold_an_account_a_sender_and_a_number() {
        let service = json!("MG0123456789abcdef0123456789abcdef");
        let table: Vec<(Value, bool)> = [
            (json!({}), true),
            (json!({"from": "Deadbeat"}), true),
            (json!({"from": "12345"}), true),
            (json!({"from": null, "messaging_service_sid": service}), true),
            (json!({"api_key_sid": "SK0123456789abcdef0123456789abcdef"}), true),
            (json!({"messaging_service_sid": service}), false),
            (json!({"from": null}), false),
            (json!({"from": null, "messaging_service_sid": "MG1"}), false),
            (json!({"from": "whatsapp:+15017122661"}), false),
            (json!({"from": "Much too long"}), false),
            (json!({"from": ""}), false),
            (json!({"to": "5558675310"}), false),
            (json!({"to": "+1555867531012345"}), false),
            (json!({"to": null}), false),
            (json!({"account_sid": "AC1/../S3CRET"}), false),
            (json!({"account_sid": "S3CRET"}), false),
            (json!({"api_key_sid": "S3CRET"}), false),
            (json!({"auth_token": ""}), false),
            (json!({"auth_token": "S3CRET\n"}), false),
            (json!({"auth_token": null}), false),
        ]
        .into_iter()
        .map(|(more, is_good)| (with(&more), is_good))
        .chain([(json!({}), false)])
        .collect();
        settings_are(&TwilioSms, &table);
    }
}
