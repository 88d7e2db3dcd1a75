//! Calls by Twilio: a voice reads the alert.
//!
//! An alert that needs a person is a call. An acknowledgement or the end of the incident makes no call: it cancels the
//! last call of the incident while the phone still rings.
//!
//! Sources: <https://www.twilio.com/docs/voice/api/call-resource>, sections Create and Update a Call,
//! <https://www.twilio.com/docs/voice/twiml/say>, <https://www.twilio.com/docs/api/errors/21220>, and those of
//! `twilio.rs`.

use std::sync::Arc;

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use super::super::answer::{misfit, sent};
use super::super::chat::all;
use super::super::markup::cut;
use super::super::pager::event::nothing_to_do;
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check_number;
use super::twilio::{Account, HOST, check_sid};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::Story;

const NAME: &str = "twilio_call";
/// The most characters that the voice reads at a time: a person must be able to listen to them twice. With escapes, they
/// stay far below the 4,000 characters of TwiML that Twilio accepts.
const HEADLINE_CHARS: usize = 150;
const SUMMARY_CHARS: usize = 300;
/// The call has ended, or has not begun to ring.
const NOT_IN_PROGRESS: i64 = 21_220;
/// There is no such call.
const NO_CALL: i64 = 20_404;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TwilioCallSettings {
    account_sid: String,
    api_key_sid: Option<String>,
    auth_token: String,
    from: String,
    to: String,
}

impl TwilioCallSettings {
    fn account(&self) -> Account<'_> {
        Account {
            sid: &self.account_sid,
            key: self.api_key_sid.as_deref(),
            token: &self.auth_token,
        }
    }
}

/// The last call of an incident.
#[derive(Deserialize)]
struct Handle {
    account: String,
    call: String,
}

/// The kind `twilio_call`.
pub struct TwilioCall;

impl Kind for TwilioCall {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: TwilioCallSettings = read(settings)?;
        all([
            settings.account().check(),
            check_number("from", &settings.from),
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
        Ok(Arc::new(TwilioCallSender {
            outbound: parts.outbound.clone(),
            api: format!("https://{HOST}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct TwilioCallSender {
    outbound: Outbound,
    api: String,
}

impl TwilioCallSender {
    async fn attempt(&self, outgoing: &Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<TwilioCallSettings>() else {
            return misfit(NAME);
        };
        if matches!(outgoing.message.alert(), Alert::Acknowledged | Alert::Resolved) {
            return self.cancel(outgoing, &settings).await;
        }
        let form = [
            ("To", settings.to.clone()),
            ("From", settings.from.clone()),
            ("Twiml", twiml(outgoing)),
        ];
        let account = settings.account();
        match account
            .post(&self.outbound, &self.api, "Calls", &form, outgoing)
            .await
        {
            Ok((answer, said)) => sent(
                &answer,
                Some(json!({"account": account.sid, "call": said["sid"]})),
            ),
            Err((_, outcome)) => outcome,
        }
    }

    /// Cancels the last call, if it still rings.
    async fn cancel(&self, outgoing: &Outgoing, settings: &TwilioCallSettings) -> Outcome {
        let account = settings.account();
        let handle: Option<Handle> = outgoing
            .handle
            .clone()
            .and_then(|handle| serde_json::from_value(handle).ok())
            // The channel's settings may name another account by now.
            .filter(|handle: &Handle| {
                handle.account == account.sid && check_sid("call", &handle.call, "CA").is_ok()
            });
        let Some(handle) = handle else {
            return nothing_to_do();
        };
        let path = format!("Calls/{}", handle.call);
        let form = [("Status", "canceled".to_owned())];
        match account
            .post(&self.outbound, &self.api, &path, &form, outgoing)
            .await
        {
            Ok((answer, _)) => sent(&answer, outgoing.handle.clone()),
            Err((Some(NOT_IN_PROGRESS | NO_CALL), _)) => nothing_to_do(),
            Err((_, outcome)) => outcome,
        }
    }
}

impl Sender for TwilioCallSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.attempt(&outgoing).await })
    }
}

/// Writes what the voice reads, twice.
fn twiml(outgoing: &Outgoing) -> String {
    let story = Story::of(&outgoing.message);
    let mut spoken = format!("Deadbeat. {}.", cut(&story.headline, HEADLINE_CHARS));
    if let Some(summary) = &story.summary {
        spoken.push_str(&format!(" {}", cut(summary, SUMMARY_CHARS)));
    }
    let affected = story.members.len() + story.more_members;
    if affected > 1 {
        spoken.push_str(&format!(" {affected} monitors are affected."));
    }
    format!(
        "<Response><Say loop=\"2\" language=\"en-US\">{}</Say></Response>",
        xml(&spoken)
    )
}

/// Escapes a text for XML. A voice does not read most punctuation of names, so `_` becomes a space.
fn xml(text: &str) -> String {
    text.replace('_', " ")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::delivery::Reason;
    use deadbeat_domain::alert::message::{Message, Phase};
    use deadbeat_testkit::{Receiver, Reply};
    use serde_json::Value;

    use super::super::super::chat::proofs::{EVIL, huge, of_text, settings_are};
    use super::super::super::conformance::{failures, last, outbound, outgoing};
    use super::super::proofs;
    use super::super::proofs::form_of;
    use super::*;
    use crate::alert::outbox::samples::{self, Sample};

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const CALL: &str = "CA0123456789abcdef0123456789abcdef";

    fn settings() -> Value {
        json!({"account_sid": ACCOUNT, "auth_token": "S3CRETtoken", "from": "+15017122661", "to": "+15558675310"})
    }

    fn handle() -> Value {
        json!({"account": ACCOUNT, "call": CALL})
    }

    async fn receiver() -> Receiver {
        let answer = json!({"sid": CALL, "status": "queued"});
        Receiver::answering(Reply::status(201).body(answer.to_string())).await
    }

    fn sender(receiver: &Receiver) -> TwilioCallSender {
        TwilioCallSender {
            outbound: outbound(),
            api: receiver.url(""),
        }
    }

    fn of(phase: Phase) -> Message {
        Sample::monitor().message(phase, "2026-01-02T03:04:05Z")
    }

    /// Checks the form by the pages named at the top of the module.
    pub(super) async fn conforms() {
        let receiver = receiver().await;
        let sender = sender(&receiver);
        let calls = proofs::samples()
            .filter(|message| !matches!(message.alert(), Alert::Acknowledged | Alert::Resolved));
        for message in calls {
            let outcome = sender.send(outgoing(NAME, &settings(), message.clone())).await;

            assert_eq!(
                outcome,
                Outcome::Sent {
                    code: Some(201),
                    handle: Some(handle())
                }
            );
            let request = last(&receiver);
            assert_eq!(request.method, "POST");
            assert_eq!(request.path, format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json"));
            assert_eq!(
                request.header("authorization"),
                Some(super::super::basic(ACCOUNT, "S3CRETtoken").as_str())
            );
            let form = form_of(&request);
            assert_eq!(form.len(), 3);
            assert_eq!(
                (form["To"].as_str(), form["From"].as_str()),
                ("+15558675310", "+15017122661")
            );
            check_twiml(&form["Twiml"]);
            if !Story::of(&message).members.is_empty() {
                assert!(form["Twiml"].contains(" 73 monitors are affected."), "{form:?}");
            }
        }
        let attempt = || outgoing(NAME, &settings(), samples::test());
        failures(&receiver, &sender, attempt, &[]).await;
        for (status, code) in [(401, 20_003), (400, 21_211), (400, 21_219)] {
            let error = json!({"code": code, "message": "no, S3CRETtoken", "status": status});
            receiver.then(Reply::status(status).body(error.to_string()));
            let outcome = sender.send(attempt()).await;
            let Outcome::Failed { detail, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(detail, format!("answered {status}: {code} no, …"));
        }
        receiver.then(Reply::status(200).body("<html>hello</html>"));
        let outcome = sender.send(attempt()).await;
        assert!(
            matches!(
                outcome,
                Outcome::Retry {
                    reason: Reason::ClientError,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }

    fn check_twiml(twiml: &str) {
        assert!(twiml.chars().count() <= 4_000, "{}", twiml.len());
        let spoken = twiml
            .strip_prefix("<Response><Say loop=\"2\" language=\"en-US\">Deadbeat. ")
            .and_then(|rest| rest.strip_suffix("</Say></Response>"))
            .unwrap();
        assert!(!spoken.is_empty() && !spoken.contains(['<', '>']), "{spoken}");
        assert!(!spoken.contains(char::is_control), "{spoken}");
        for entity in spoken.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;"].iter().any(|name| entity.starts_with(name)),
                "{spoken}"
            );
        }
    }

    #[tokio::test]
    async fn an_acknowledged_incident_stops_the_ringing() {
        let receiver = receiver().await;
        let sender = sender(&receiver);
        let with = |handle: Option<Value>, phase| Outgoing {
            handle,
            ..outgoing(NAME, &settings(), of(phase))
        };
        for phase in [Phase::Acknowledged, Phase::Resolved] {
            receiver.then(Reply::status(200).body(json!({"sid": CALL, "status": "canceled"}).to_string()));
            let outcome = sender.send(with(Some(handle()), phase)).await;

            assert_eq!(
                outcome,
                Outcome::Sent {
                    code: Some(200),
                    handle: Some(handle())
                }
            );
            let request = last(&receiver);
            assert_eq!(
                request.path,
                format!("/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json")
            );
            let form = form_of(&request);
            assert_eq!((form.len(), form["Status"].as_str()), (1, "canceled"));
        }
        // The person has hung up, or Twilio forgot the call.
        for (status, code) in [(400, 21_220), (404, 20_404)] {
            receiver.then(Reply::status(status).body(json!({"code": code, "message": "x"}).to_string()));
            let outcome = sender.send(with(Some(handle()), Phase::Resolved)).await;
            assert_eq!(outcome, nothing_to_do(), "{code}");
        }
        receiver.then(Reply::status(503));
        let outcome = sender.send(with(Some(handle()), Phase::Resolved)).await;
        assert_eq!(outcome.reason(), Some(Reason::ServerError));
        // No call, a call of another account, and a handle that is none.
        let before = receiver.requests().len();
        for handle in [
            None,
            Some(json!({"account": "AC1", "call": CALL})),
            Some(json!({"account": ACCOUNT, "call": "../Messages"})),
            Some(json!("CA")),
        ] {
            assert_eq!(sender.send(with(handle, Phase::Resolved)).await, nothing_to_do());
        }
        assert_eq!(receiver.requests().len(), before);
    }

    #[test]
    fn texts_from_outside_are_no_verbs_and_keep_the_limits() {
        let evil = "</Say><Dial>+1900</Dial><Say>&amp;\"'";
        for message in huge()
            .into_iter()
            .chain([of_text(EVIL), of_text(evil), of_text(&"&".repeat(2_000))])
        {
            check_twiml(&twiml(&outgoing(NAME, &json!({}), message)));
        }
    }

    #[test]
    fn settings_hold_an_account_and_two_numbers() {
        let table: Vec<(Value, bool)> = [
            (json!({}), true),
            (json!({"api_key_sid": "SK0123456789abcdef0123456789abcdef"}), true),
            (json!({"from": "Deadbeat"}), false),
            (json!({"from": "12345"}), false),
            (json!({"to": "client:S3CRET"}), false),
            (json!({"to": "+0155"}), false),
            (json!({"to": 5}), false),
            (json!({"account_sid": "S3CRET"}), false),
            (json!({"api_key_sid": "S3CRET"}), false),
            (json!({"auth_token": "S3CRET\n"}), false),
        ]
        .into_iter()
        .map(|(more, is_good)| {
            let mut settings = settings();
            for (field, value) in more.as_object().unwrap() {
                settings[field] = value.clone();
            }
            (settings, is_good)
        })
        .chain([(json!({}), false)])
        .collect();
        settings_are(&TwilioCall, &table);
    }
}
