//! Web Push: notifications of a browser or an installed page, without an account anywhere.
//!
//! The channel's settings are a browser's subscription. The push service of the browser's vendor stores each message
//! until the browser comes, and cannot read it. All messages of an incident have one topic, so a newer message replaces
//! one that still waits, and one tag, so the browser shows one notification.
//!
//! Sources: RFC 8030 (TTL, Urgency, Topic, 404 and 410), RFC 8291 (encryption), RFC 8292 (the server's token), and for
//! the form of the message the declarative push messages of <https://www.w3.org/TR/push-api/>, which some browsers show
//! without a script.

mod encryption;
pub(crate) mod vapid;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use self::encryption::{AUTH, MESSAGE_BYTES, POINT, Subscriber, encrypt, is_point};
use self::vapid::VapidKey;
use super::super::answer::{judge, misfit, sent, unusable};
use super::super::chat::all;
use super::super::http::{check_new_url, check_reach, check_url, host_of};
use super::super::markup::{Markup, cut};
use super::super::pager::event::Page;
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::Urgency;
use super::plain::CHARS;
use crate::alert::delivery::outbound::{Call, Outbound};
use crate::alert::delivery::story::Story;

const NAME: &str = "web_push";
/// The most characters of each text. A phone shows less.
const TITLE_CHARS: usize = 120;
const BODY_CHARS: usize = 300;
/// How long a push service keeps a message for a browser that is away, in seconds.
const TTL: u32 = 86_400;
/// Marks a declarative push message.
const DECLARATIVE: u16 = 8_030;
/// The statuses of a subscription that has ended (RFC 8030, 7.3).
const GONE: [u16; 2] = [404, 410];

/// The identity of this server for push services.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The key that signs tokens.
    pub(crate) key: Arc<VapidKey>,
    /// An address of the operator (https: or mailto:).
    pub(crate) contact: Option<String>,
}

impl Identity {
    /// Returns the identity of a server that does not exist, for previews.
    pub(crate) fn made_up() -> Option<Self> {
        let key = VapidKey::parse(&VapidKey::generate())?;
        Some(Self {
            key: Arc::new(key),
            contact: None,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebPushSettings {
    endpoint: String,
    p256dh: String,
    auth: String,
}

/// Reads bytes of a subscription. None: the text is no base64url, or has another number of bytes.
fn bytes_of(text: &str, count: usize) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    (bytes.len() == count).then_some(bytes)
}

fn check_key(settings: &WebPushSettings) -> Result<(), FieldError> {
    if bytes_of(&settings.p256dh, POINT).is_some_and(|bytes| is_point(&bytes)) {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/p256dh",
        "is not a browser's key p256dh: a point on P-256, 65 bytes in base64url",
    ))
}

fn check_auth(settings: &WebPushSettings) -> Result<(), FieldError> {
    if bytes_of(&settings.auth, AUTH).is_some() {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/auth",
        "is not a browser's secret auth: 16 bytes in base64url",
    ))
}

/// Checks that an endpoint has no user: its header would take the place of the server's token.
fn check_endpoint(endpoint: &str) -> Result<(), FieldError> {
    let is_plain = Url::parse(endpoint)
        .is_ok_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
    if is_plain {
        return Ok(());
    }
    Err(FieldError::new(
        "/settings/endpoint",
        "is not a browser's endpoint, such as https://push.example.net/…, without a user",
    ))
}

/// The kind `web_push`.
pub struct WebPush;

impl WebPush {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: WebPushSettings = read(settings)?;
        all([
            address("endpoint", &settings.endpoint).and_then(|()| check_endpoint(&settings.endpoint)),
            check_key(&settings),
            check_auth(&settings),
        ])
    }
}

impl Kind for WebPush {
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
        &["endpoint", "auth"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "endpoint")
    }

    fn shows_identity(&self) -> bool {
        true
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(WebPushSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct WebPushSender {
    outbound: Outbound,
}

impl WebPushSender {
    async fn attempt(&self, outgoing: &Outgoing) -> Result<Outcome, Outcome> {
        let Ok(settings) = outgoing.settings.read::<WebPushSettings>() else {
            return Err(misfit(NAME));
        };
        let (call, token) = request(outgoing, &settings)?;
        let mut answer = self.outbound.send(call).await;
        if let Ok(answer) = &mut answer {
            // The token is good for two hours, and the service may repeat it.
            answer.body = String::from_utf8_lossy(&answer.body)
                .replace(&token, "…")
                .into_bytes();
        }
        judge(answer, outgoing, &GONE).map(|answer| sent(&answer, None))
    }
}

impl Sender for WebPushSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "endpoint")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.attempt(&outgoing).await.unwrap_or_else(|outcome| outcome) })
    }
}

/// Makes the request of an attempt. Returns also its token, which no text may show.
fn request(outgoing: &Outgoing, settings: &WebPushSettings) -> Result<(Call, String), Outcome> {
    let identity = outgoing
        .signed
        .identity
        .as_ref()
        .ok_or_else(|| failed(Reason::Setup, "this server has no key for push services"))?;
    let keys = Url::parse(&settings.endpoint)
        .ok()
        .zip(bytes_of(&settings.p256dh, POINT))
        .zip(bytes_of(&settings.auth, AUTH));
    let ((endpoint, public), auth) = keys.ok_or_else(|| misfit(NAME))?;
    let subscriber = Subscriber {
        public: &public,
        auth: &auth,
    };
    let body = encrypt(&message(outgoing), subscriber)
        .map_err(|_| unusable("nothing can be encrypted with the subscription's p256dh"))?;
    let authorization = identity
        .key
        .authorization(&endpoint, identity.contact.as_deref(), outgoing.attempted_at)
        .ok_or_else(|| {
            failed(
                Reason::Internal,
                "the token for the push service could not be signed",
            )
        })?;
    let token = authorization
        .split(['=', ','])
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let mut headers = HeaderMap::new();
    let mut authorization = HeaderValue::from_str(&authorization).map_err(|_| misfit(NAME))?;
    authorization.set_sensitive(true);
    headers.insert(AUTHORIZATION, authorization);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
    headers.insert(HeaderName::from_static("ttl"), HeaderValue::from(TTL));
    headers.insert(
        HeaderName::from_static("urgency"),
        HeaderValue::from_static(urgency(outgoing)),
    );
    if let Some(topic) = topic(&Page::of(outgoing).key).and_then(|topic| HeaderValue::from_str(&topic).ok()) {
        headers.insert(HeaderName::from_static("topic"), topic);
    }
    let call = Call {
        method: Method::POST,
        url: settings.endpoint.clone(),
        headers,
        body,
        reads_success: false,
    };
    Ok((call, token))
}

/// The outcome of an attempt that failed in this server.
fn failed(reason: Reason, detail: &str) -> Outcome {
    Outcome::Retry {
        reason,
        code: None,
        detail: detail.to_owned(),
        retry_after: None,
    }
}

/// Returns the topic of an incident: at most 32 characters of base64url (RFC 8030, 5.4).
fn topic(key: &str) -> Option<String> {
    let id: Uuid = key.parse().ok()?;
    Some(URL_SAFE_NO_PAD.encode(id.as_bytes()))
}

/// Returns the urgency (RFC 8030, 5.3). A phone that saves power fetches `high` at once, and others later.
fn urgency(outgoing: &Outgoing) -> &'static str {
    match Urgency::of(&outgoing.message) {
        Urgency::Quiet => "low",
        Urgency::Normal => "normal",
        Urgency::High | Urgency::Emergency => "high",
    }
}

/// Writes the message, in at most [`MESSAGE_BYTES`].
fn message(outgoing: &Outgoing) -> Vec<u8> {
    let story = Story::of(&outgoing.message);
    let key = Page::of(outgoing).key;
    let body = story.summary.as_deref().unwrap_or_default();
    let mut message = json!({
        "web_push": DECLARATIVE,
        "notification": {
            "title": CHARS.escape(&cut(&story.headline, TITLE_CHARS)),
            "body": CHARS.escape(&cut(body, BODY_CHARS)),
            "tag": key,
            "silent": Urgency::of(&outgoing.message) == Urgency::Quiet,
        },
        "id": key,
    });
    let optional = [
        ("navigate", story.link.map(Value::from)),
        (
            "actions",
            story
                .acknowledge
                .map(|url| json!([{"action": "acknowledge", "title": "Acknowledge", "navigate": url}])),
        ),
    ];
    for (field, value) in optional {
        let Some(value) = value else { continue };
        let mut longer = message.clone();
        longer["notification"][field] = value;
        // Links have no fixed length. One that does not fit is left out: if it were cut, it would lead nowhere.
        if longer.to_string().len() <= MESSAGE_BYTES {
            message = longer;
        }
    }
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
