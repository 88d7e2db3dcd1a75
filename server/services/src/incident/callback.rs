//! Callbacks: a service to which a channel writes says that one of its users acknowledged an incident.
//!
//! Each service proves its requests with a secret that the channel's settings hold, sealed. A channel without the secret takes no callbacks.
//! All that can be wrong before the proof has one answer, so a stranger learns nothing about channels and incidents. After the proof, an incident
//! that is not there gets the same answer as one that was acknowledged. A repeated request changes nothing: the first acknowledgement stays.

pub mod jira_service_management;
pub mod pagerduty;
pub mod slack;
pub mod telegram;

use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use deadbeat_store::alert::channel;
use deadbeat_store::connection::asker::Asker;
use deadbeat_store::incident::Incident;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use thiserror::Error;

use super::acknowledgement::{self, By};
use crate::alert::delivery::senders::printable;
use crate::alert::sealing;
use crate::{ServiceError, Services};

/// The most bytes of a callback's body. PagerDuty sends the largest ones: 256 KB at most.
pub const BODY_BYTES: usize = 262_144;
/// The most characters of a user's name.
const NAME_CHARS: usize = 100;

/// Why a callback was refused.
#[derive(Debug, Error)]
pub enum CallbackError {
    /// Nothing proves it: a wrong, old or missing signature or token, an unknown channel, or a channel without the secret.
    #[error("the signature or token of the callback is not right for a channel that takes callbacks")]
    Unproved,
    /// It is proved, and its body cannot be read.
    #[error("the body is not a callback of this service")]
    Unreadable,
    /// The acknowledgement failed, or the channel's secret cannot be opened.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl From<deadbeat_store::StoreError> for CallbackError {
    fn from(error: deadbeat_store::StoreError) -> Self {
        Self::Service(error.into())
    }
}

/// The channel that a callback names. Nothing of it is proved yet.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The channel's project.
    pub project: ProjectId,
    /// The channel.
    pub channel: ChannelId,
}

/// A channel's settings, and the secret by which its service proves callbacks.
struct Proving {
    settings: Value,
    secret: String,
}

/// Reads the secret in `field` of a channel of this kind.
///
/// # Errors
/// [`CallbackError::Unproved`] without such a channel or secret; the secret cannot be opened, or the database is away.
async fn proving(
    services: &Services,
    place: Place,
    kind: &str,
    field: &str,
) -> Result<Proving, CallbackError> {
    let found = channel::get(&services.reader(), place.project, place.channel).await?;
    let channel = found
        .filter(|channel| channel.settings.kind() == kind)
        .filter(|channel| channel.settings.get(field).is_some_and(|value| !value.is_null()))
        .ok_or(CallbackError::Unproved)?;
    let opened = sealing::open(&services.keyring, &channel)
        .map_err(|fault| ServiceError::KeyMissing(format!("the channel {fault}")))?;
    let secret = opened.settings.get(field).and_then(Value::as_str);
    let secret = secret
        .filter(|secret| !secret.is_empty())
        .ok_or(CallbackError::Unproved)?;
    Ok(Proving {
        secret: secret.to_owned(),
        settings: opened.settings.to_json(),
    })
}

/// Whether HMAC-SHA256 of the parts has this signature in hexadecimal. Takes as long for a wrong one.
fn is_signed(secret: &str, parts: &[&[u8]], signature: &str) -> bool {
    let digits = signature.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    for part in parts {
        mac.update(part);
    }
    bytes.is_some_and(|bytes| mac.verify_slice(&bytes).is_ok())
}

/// Whether a token is the secret. Both are compared as signatures under a key of this call, so the time says nothing of how much is right.
fn is_token(secret: &str, token: &str) -> bool {
    let key: [u8; 32] = rand::random();
    let mac = |text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    };
    let given = mac(token).map(|mac| mac.finalize().into_bytes());
    given
        .zip(mac(secret))
        .is_some_and(|(given, mac)| mac.verify(&given).is_ok())
}

/// Acknowledges an incident for a user of a service. None: the project has no such incident.
async fn acknowledge(
    services: &Services,
    project: ProjectId,
    incident: IncidentId,
    name: &str,
    service: &'static str,
) -> Result<Option<Incident>, CallbackError> {
    // A service has few addresses, and they work for all tenants: from here on the project asks.
    Asker::Project(project).takes_over();
    let by = By::User {
        name: printable(name, NAME_CHARS),
        service,
    };
    match acknowledgement::acknowledge_as(services, project, incident, &by, None).await {
        Ok(incident) => Ok(Some(incident)),
        Err(ServiceError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of <https://docs.slack.dev/authentication/verifying-requests-from-slack>.
    #[test]
    fn a_signature_is_that_of_slacks_example() {
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                    channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                    response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
                    trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let signature = "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
        let secret = "8f742231b10e8888abcd99yyyzzz85a5";
        let signed = |parts: &[&[u8]]| is_signed(secret, parts, signature);

        assert!(signed(&[b"v0:", b"1531420618", b":", body.as_bytes()]));
        assert!(!signed(&[b"v0:", b"1531420619", b":", body.as_bytes()]));
        for wrong in ["", "x", &signature[..62], &"0".repeat(64), &"é".repeat(32)] {
            assert!(
                !is_signed(secret, &[b"v0:1531420618:", body.as_bytes()], wrong),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_token_is_the_whole_secret() {
        assert!(is_token("a-long-secret", "a-long-secret"));
        for wrong in ["", "a-long-secre", "a-long-secret ", "A-long-secret"] {
            assert!(!is_token("a-long-secret", wrong), "{wrong:?}");
        }
    }
}
