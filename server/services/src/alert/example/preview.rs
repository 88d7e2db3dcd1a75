//! Shows what a channel would send, without sending it.
//!
//! A preview is made like a real attempt: the kind's own sender makes the requests, and a client that sends nothing keeps them
//! ([`Recorder`]). A mail is shown as its subject, text and HTML.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::Message;
use deadbeat_domain::ids::{ChannelId, DeliveryId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_store::Reader;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::alert::channel::{read_new, rehearse};
use crate::alert::delivery::outbound::{Call, Outbound, Recorder};
use crate::alert::delivery::redact::Redactor;
use crate::alert::delivery::senders::email::{self, mail};
use crate::alert::delivery::senders::push::web_push::Identity;
use crate::alert::delivery::senders::{self, Kind, Outgoing, Parts, SetupError, Signed};
use crate::alert::example;
use crate::alert::sealing;
use crate::secret::keyring::Keyring;
use crate::{ServiceError, Services};

/// The name of each kind, and its page in docs/channels.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/channel_pages.rs"));
/// The id of the made-up delivery.
const ID: DeliveryId = DeliveryId(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001));
/// Signs previews of channels that do not exist. No receiver checks these signatures.
const SIGNING_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// The link and the value of the button that an attempt would sign. Nobody signed these.
const UNSUBSCRIBE: &str =
    "https://deadbeat.example.org/unsubscribe/0198c0de-0000-7000-8000-000000000008?token=…";
const BUTTON: &str = "example";

/// The requests or the mail of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The requests, in order. A kind that needs the answer to its first request shows only that one.
    pub requests: Vec<Request>,
    /// The mail.
    pub mail: Option<mail::Mail>,
    /// The reason why the channel would send nothing.
    pub unsent: Option<String>,
}

/// A request that would be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The URL. It may hold a secret.
    pub url: String,
    /// The headers. They may hold secrets.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Leaves out the parts that may hold secrets.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl From<Call> for Request {
    fn from(call: Call) -> Self {
        let text =
            |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            method: call.method.to_string(),
            url: call.url,
            headers: call
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: call.body,
        }
    }
}

impl Request {
    fn hide(&mut self, redactor: &Redactor) {
        self.url = redactor.hide(&self.url);
        for (_, value) in &mut self.headers {
            *value = redactor.hide(value);
        }
        if let Ok(text) = std::str::from_utf8(&self.body) {
            self.body = redactor.hide(text).into_bytes();
        }
    }
}

impl Preview {
    /// Returns the answer of the API. A body that is no text is in base64.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let requests = self.requests.iter().map(|request| {
            let headers = request
                .headers
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}));
            let text = std::str::from_utf8(&request.body).ok();
            json!({
                "method": request.method,
                "url": request.url,
                "headers": headers.collect::<Vec<_>>(),
                "body": text,
                "body_base64": text.is_none().then(|| STANDARD.encode(&request.body)),
            })
        });
        let mail = self.mail.as_ref();
        json!({
            "requests": requests.collect::<Vec<_>>(),
            "mail": mail.map(|mail| json!({"subject": mail.subject, "text": mail.text, "html": mail.html})),
            "unsent": self.unsent,
        })
    }
}

/// Returns the settings in the first example of the kind's page.
#[must_use]
pub fn example_settings(kind: &str) -> Option<Value> {
    let (_, page) = PAGES.iter().find(|(name, _)| *name == kind)?;
    let block = page.split("```json\n").nth(1)?.split("```").next()?;
    let mut new: Value = serde_json::from_str(block).ok()?;
    Some(new["settings"].take())
}

/// Shows what a channel of this kind with these settings would send for this message.
///
/// # Errors
/// The kind makes no sender.
pub async fn of_settings(
    kind: &dyn Kind,
    settings: Settings,
    message: Message,
) -> Result<Preview, SetupError> {
    let signing_secret = kind.signing_secret().map(|_| SIGNING_SECRET.to_owned());
    show(kind, settings, signing_secret, message).await
}

async fn show(
    kind: &dyn Kind,
    settings: Settings,
    signing_secret: Option<String>,
    message: Message,
) -> Result<Preview, SetupError> {
    let alert = message.alert();
    if email::address(&settings).is_some() {
        let unsubscribe = (alert != Alert::Confirmation).then_some(UNSUBSCRIBE);
        return Ok(Preview {
            requests: Vec::new(),
            mail: Some(mail::render_with(&message, unsubscribe)),
            unsent: None,
        });
    }
    let needs_somebody = matches!(alert, Alert::Opened | Alert::Reminder | Alert::Escalated);
    let recorder = Recorder::default();
    let outbound = Outbound::recording(recorder.clone());
    let sender = kind.sender(&Parts {
        outbound: &outbound,
        smtp: None,
    })?;
    let outcome = sender
        .send(Outgoing {
            id: ID,
            attempted_at: message.at,
            message,
            settings,
            signing_secret,
            handle: None,
            signed: Signed {
                unsubscribe_url: None,
                button: needs_somebody.then(|| BUTTON.to_owned()),
                identity: kind.shows_identity().then(Identity::made_up).flatten(),
            },
        })
        .await;
    let requests: Vec<Request> = recorder.take().into_iter().map(Request::from).collect();
    let unsent = match outcome {
        _ if !requests.is_empty() => None,
        Outcome::Sent { .. } => Some("This kind of channel sends nothing for this message.".to_owned()),
        Outcome::Retry { detail, .. } | Outcome::Failed { detail, .. } => Some(detail),
    };
    Ok(Preview {
        requests,
        mail: None,
        unsent,
    })
}

/// Shows what an existing channel would send, without its secrets. For the operator, who may see the channels of all projects.
///
/// # Errors
/// There is no such channel, its secrets cannot be opened, or the database is away.
pub async fn of_channel(
    reader: &Reader,
    ring: &Keyring,
    id: ChannelId,
    message: Message,
) -> Result<Preview, ServiceError> {
    let missing = || ServiceError::NotFound("channel");
    let project = deadbeat_store::alert::channel::owner(reader, id).await?;
    let project = project.ok_or_else(missing)?;
    let channel = deadbeat_store::alert::channel::get(reader, project, id).await?;
    let channel = channel.ok_or_else(missing)?;
    let kind = senders::kind(channel.settings.kind()).ok_or_else(|| {
        ServiceError::Conflict("this version does not know the kind of the channel".to_owned())
    })?;
    let opened = sealing::open(ring, &channel)
        .map_err(|fault| ServiceError::Conflict(format!("the channel {fault}")))?;
    let redactor = Redactor::of(&opened.settings, opened.signing_secret.as_deref());
    let mut preview = show(kind, opened.settings, opened.signing_secret, message)
        .await
        .map_err(|fault| ServiceError::Conflict(fault.to_string()))?;
    for request in &mut preview.requests {
        request.hide(&redactor);
    }
    preview.unsent = preview.unsent.map(|why| redactor.hide(&why));
    Ok(preview)
}

/// Shows what a channel with these settings would send, before it exists. Without settings, uses those of the kind's page. Sends and stores
/// nothing.
///
/// # Errors
/// The access is not sufficient, a field is invalid, or too many rehearsals wait.
pub async fn of_new(
    services: &Services,
    access: &Access,
    kind: &str,
    settings: Option<&Value>,
    alert: Alert,
    cause: Cause,
) -> Result<Preview, ServiceError> {
    let project = access.may(Action::ManageChannels)?;
    let example = example_settings(kind);
    let settings = settings.or(example.as_ref()).unwrap_or(&Value::Null);
    let (kind, settings) = read_new(services, kind, settings).map_err(ServiceError::Invalid)?;
    rehearse(services, project, kind, &settings).await?;
    of_settings(kind, settings, example::of(alert, cause))
        .await
        .map_err(|fault| ServiceError::Conflict(fault.to_string()))
}

#[cfg(test)]
mod tests;
