//! Webhooks: the message as JSON, signed by the Standard Webhooks convention (<https://www.standardwebhooks.com>).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use sha2::Sha256;

use super::answer::{judge, misfit, sent, unusable};
use super::http::{check_new_url, check_reach, check_url, host_of};
use super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use crate::alert::delivery::outbound::Outbound;

const NAME: &str = "webhook";
const PREFIX: &str = "whsec_";

/// Makes a new secret for a channel: 24 random bytes in the form of the convention.
///
/// # Panics
/// If the operating system has no randomness: nothing safe can be done then.
#[must_use]
pub fn signing_secret() -> String {
    let mut bytes = [0_u8; 24];
    OsRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system gives randomness");
    format!("{PREFIX}{}", STANDARD.encode(bytes))
}

/// Settings of a webhook. The URL stays out of logs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// http or https, at most 2,000 characters.
    pub url: String,
}

impl From<WebhookSettings> for Settings {
    fn from(settings: WebhookSettings) -> Self {
        Self::new(NAME, Map::from_iter([("url".to_owned(), settings.url.into())]))
    }
}

/// The kind `webhook`.
pub struct Webhooks;

impl Kind for Webhooks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let WebhookSettings { url } = read(settings)?;
        check_url("url", &url).map_err(|fault| vec![fault])
    }

    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let WebhookSettings { url } = read(settings)?;
        check_new_url("url", &url).map_err(|fault| vec![fault])
    }

    /// A URL often has the receiver's token in its path.
    fn secrets(&self) -> &'static [&'static str] {
        &["url"]
    }

    /// Returns the URL's host, as the URL spells it.
    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    fn signing_secret(&self) -> Option<String> {
        Some(signing_secret())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(Webhook::new(parts.outbound.clone())))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

/// Posts messages.
pub struct Webhook {
    outbound: Outbound,
}

impl Webhook {
    /// Makes a sender that uses this client.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }

    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(WebhookSettings { url }) = outgoing.settings.read() else {
            return misfit(NAME);
        };
        let secret = outgoing.signing_secret.as_deref().unwrap_or_default();
        let id = outgoing.id.to_string();
        let timestamp = outgoing.attempted_at.timestamp();
        let body = outgoing.message.to_json().to_string().into_bytes();
        let Some(signature) = signature(secret, &id, timestamp, &body) else {
            return unusable(
                "the channel's signing secret cannot be read: delete the channel and add it again",
            );
        };

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature),
        ] {
            let value = HeaderValue::from_str(&value).expect("ids, numbers and base64 are header values");
            headers.insert(HeaderName::from_static(name), value);
        }
        let answer = self.outbound.post(&url, headers, body).await;
        // Only 410 Gone is permanent, as in the convention. A 404 or a 401 is often a deployment that is under way,
        // and the day of attempts gives its owner time to repair it.
        match judge(answer, &outgoing, &[410]) {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => outcome,
        }
    }
}

impl Sender for Webhook {
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

/// Returns `v1,` and the HMAC-SHA256 of `id.timestamp.body` under the decoded secret. None: the secret cannot be
/// decoded.
fn signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let key = STANDARD
        .decode(secret.strip_prefix(PREFIX)?)
        .ok()
        .filter(|key| !key.is_empty())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use deadbeat_domain::alert::delivery::Reason;
    use deadbeat_domain::ids::DeliveryId;
    use deadbeat_testkit::{Receiver, Reply};
    use serde_json::{Value, json};

    use crate::alert::delivery::outbound::OutboundSettings;
    use crate::alert::outbox::samples;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The form is that of openapi.yaml. A contract test checks that they agree
    /// (server/app/tests/it/contract/webhooks.rs).
    pub(super) async fn conforms() {
        let receiver = Receiver::start().await;
        let outbound = Outbound::new(&OutboundSettings {
            ports: Vec::new(),
            allow_private_networks: true,
            loopback_only: false,
            user_agent: "Deadbeat/test".to_owned(),
        })
        .unwrap();
        let parts = Parts {
            outbound: &outbound,
            smtp: None,
        };
        let sender = Webhooks.sender(&parts).unwrap();
        let outgoing = |message| Outgoing {
            id: DeliveryId::generate(),
            attempted_at: at("2026-01-02T03:04:05Z"),
            message,
            settings: WebhookSettings {
                url: receiver.url("/hook"),
            }
            .into(),
            signing_secret: Some(SECRET.to_owned()),
            handle: None,
            signed: super::super::Signed::default(),
        };

        for message in samples::all() {
            let outgoing = outgoing(message.clone());
            let id = outgoing.id.to_string();
            assert_eq!(
                sender.send(outgoing).await,
                Outcome::Sent {
                    code: Some(200),
                    handle: None
                }
            );

            let request = receiver.requests().pop().unwrap();
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(body, message.to_json());
            assert_eq!(
                (&body["version"], &body["type"]),
                (&json!(1), &json!(message.alert().event_type()))
            );
            assert_eq!(request.header("webhook-id"), Some(id.as_str()));
            assert_eq!(
                request.header("webhook-signature"),
                signature(SECRET, &id, 1_767_323_045, &request.body).as_deref()
            );
        }
        receiver
            .then(Reply::status(401))
            .then(Reply::status(429).header("Retry-After", "90"))
            .then(Reply::status(302).header("Location", "http://127.0.0.1/"))
            .then(Reply::close())
            .then(Reply::status(410));
        let mut ends = Vec::new();
        for _ in 0..5 {
            ends.push(match sender.send(outgoing(samples::test())).await {
                Outcome::Sent { .. } => panic!("it was refused"),
                Outcome::Retry {
                    reason,
                    code,
                    retry_after,
                    ..
                } => ("retry", reason, code, retry_after.map(|wait| wait.num_seconds())),
                Outcome::Failed { reason, code, .. } => ("failed", reason, code, None),
            });
        }
        assert_eq!(
            ends,
            [
                ("retry", Reason::Auth, Some(401), None),
                ("retry", Reason::RateLimit, Some(429), Some(90)),
                ("retry", Reason::Redirect, Some(302), None),
                ("retry", Reason::Connection, None, None),
                ("failed", Reason::ClientError, Some(410), None),
            ]
        );
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The vectors of the convention's own libraries and documentation.
    #[test]
    fn signatures_are_those_of_the_standard() {
        for (secret, id, timestamp, body, expected) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_plJ3nmyCDGBGInavdOK15jsl",
                "msg_loFOjxNBNWLDOmuOwyc4Bk3s",
                1_731_705_121,
                r#"{"event_type":"ping","data":{"success":true}}"#,
                "v1,BLeYtCBbjDROb59nDfrFakDSwX09+G2NBmcE5BWNIs4=",
            ),
        ] {
            assert_eq!(
                signature(secret, id, timestamp, body.as_bytes()).as_deref(),
                Some(expected),
                "{id}"
            );
        }
    }

    #[test]
    fn secrets_are_new_each_time_and_can_sign() {
        let (one, other) = (signing_secret(), signing_secret());

        assert_ne!(one, other);
        assert_eq!(
            STANDARD
                .decode(one.strip_prefix("whsec_").unwrap())
                .unwrap()
                .len(),
            24
        );
        assert!(signature(&one, "id", 0, b"").is_some());
        for unusable in ["", "whsec_", "whsec_not base64", "c2VjcmV0"] {
            assert_eq!(signature(unusable, "id", 0, b""), None, "{unusable}");
        }
    }
}
