//! Webhooks: the message as JSON, or in the form of a template or a preset, signed by the Standard Webhooks convention
//! (<https://www.standardwebhooks.com>).

mod escape;
mod preset;
mod request;
mod settings;
mod template;
mod variables;

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
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use sha2::Sha256;

use super::answer::{judge, misfit, sent, unusable};
use super::http::{check_new_url, check_reach, check_url, host_of};
use super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use crate::alert::delivery::outbound::{Call, Outbound};
use request::{Prepared, prepare};
use settings::{Form, Texts};

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

/// Settings of a webhook that sends the message in the standard form. The URL stays out of logs.
#[derive(Clone, Serialize, Deserialize)]
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

impl Webhooks {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let form: Form = read(settings)?;
        let mut faults: Vec<FieldError> = address("url", &form.url).err().into_iter().collect();
        faults.extend(form.check());
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

impl Kind for Webhooks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_url)
    }

    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_new_url)
    }

    fn has_templates(&self, settings: &Settings) -> bool {
        Texts::read(settings)
            .is_some_and(|texts| texts.templates().next().is_some() && texts.check().is_empty())
    }

    fn rehearse(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Texts::read(settings).map_or(Ok(()), |texts| request::rehearse(&texts))
    }

    /// A URL often has the receiver's token in its path, and headers often hold tokens.
    fn secrets(&self) -> &'static [&'static str] {
        &["url", "headers"]
    }

    /// Returns the URL's host, as the URL spells it.
    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "url")
    }

    /// Returns the whole URL: many receivers may share a host.
    fn destination(&self, settings: &Settings) -> Option<String> {
        settings.get("url")?.as_str().map(str::to_owned)
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
        let Ok(form) = outgoing.settings.read::<Form>() else {
            return misfit(NAME);
        };
        let Prepared {
            method,
            url,
            mut headers,
            body,
            fault,
        } = prepare(form, outgoing.id, outgoing.message.clone()).await;
        if let Some(fault) = &fault {
            tracing::info!(
                fault,
                "a template of a webhook failed; the alert goes out in the standard form"
            );
        }
        let secret = outgoing.signing_secret.as_deref().unwrap_or_default();
        let id = outgoing.id.to_string();
        let timestamp = outgoing.attempted_at.timestamp();
        let Some(signature) = signature(secret, &id, timestamp, &body) else {
            return unusable(
                "the channel's signing secret cannot be read: delete the channel and add it again",
            );
        };
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature),
        ] {
            let value = HeaderValue::from_str(&value).expect("ids, numbers and base64 are header values");
            headers.insert(HeaderName::from_static(name), value);
        }
        let call = Call {
            method,
            url,
            headers,
            body,
            reads_success: false,
        };
        let answer = self.outbound.send(call).await;
        // Only 410 Gone is permanent, as in the convention. A 404 or a 401 is often a deployment that is under way,
        // and the day of attempts gives its owner time to repair it.
        match judge(answer, &outgoing, &[410]) {
            Ok(answer) => sent(&answer, None),
            Err(outcome) => with_fault(outcome, fault),
        }
    }
}

/// Adds the fault of a template to a failed outcome: the receiver may have refused the message because of its standard form.
fn with_fault(mut outcome: Outcome, fault: Option<String>) -> Outcome {
    if let (Some(fault), Outcome::Retry { detail, .. } | Outcome::Failed { detail, .. }) =
        (fault, &mut outcome)
    {
        *detail = format!(
            "the message went out in the standard form, because a template failed ({fault}); {detail}"
        );
    }
    outcome
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
mod tests;
