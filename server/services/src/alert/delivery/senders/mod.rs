//! Kinds of channels, and the code that sends to them.
//!
//! A kind is one file in the folder of its group. The file has the kind's settings with their checks, the rendering
//! of messages, the sending, and the tests. A new kind also needs one line in [`KINDS`], its schemas in openapi.yaml,
//! and its page docs/channels/<kind>.md. A contract test checks all of these.

mod answer;
pub mod chat;
#[cfg(test)]
mod conformance;
pub mod email;
pub(crate) mod http;
mod markup;
pub mod pager;
pub mod push;
pub mod webhook;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::Message;
use deadbeat_domain::ids::DeliveryId;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::text::replaced;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::outbound::{Outbound, OutboundSettings};
use super::redact::Redactor;
use super::story::Story;
use email::SmtpSettings;

/// All kinds.
#[rustfmt::skip] // one line a kind
pub static KINDS: &[&dyn Kind] = &[
    &webhook::Webhooks,
    &email::Emails,
    &chat::slack::Slack,
    &chat::discord::Discord,
    &chat::telegram::Telegram,
    &chat::teams::Teams,
    &chat::matrix::Matrix,
    &chat::mattermost::Mattermost,
    &chat::google_chat::GoogleChat,
    &chat::rocket_chat::RocketChat,
    &chat::zulip::Zulip,
    &pager::pagerduty::PagerDuty,
    &pager::jira_service_management::JiraServiceManagement,
    &pager::alertmanager::Alertmanager,
    &pager::github::Github,
    &pager::incident_io::IncidentIo,
    &pager::splunk_on_call::SplunkOnCall,
    &pager::apprise::Apprise,
    &push::ntfy::Ntfy,
    &push::gotify::Gotify,
    &push::pushover::Pushover,
    &push::signal::Signal,
    &push::twilio_sms::TwilioSms,
    &push::twilio_call::TwilioCall,
    &push::web_push::WebPush,
];

/// Returns the kind of this name. None: only another version of the server may know it.
#[must_use]
pub fn kind(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// A kind of channel: the interface to the rest of the server.
pub trait Kind: Send + Sync {
    /// Returns its name in SQL, JSON, openapi.yaml and docs/channels. The name never changes.
    fn name(&self) -> &'static str;

    /// Checks settings. This also checks stored rows, so it must accept everything that an older version accepted.
    ///
    /// # Errors
    /// Every fault, each with a pointer into the request.
    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>>;

    /// Checks settings that a person enters now. It may refuse settings that older versions accepted.
    ///
    /// # Errors
    /// Every fault, each with a pointer into the request.
    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        self.check(settings)
    }

    /// True if the settings have templates, so that [`Kind::rehearse`] must try them. The settings may lack the fields that a change
    /// leaves out.
    fn has_templates(&self, _settings: &Settings) -> bool {
        false
    }

    /// Renders every kind of message with the templates of the settings. The worst templates take a core for some seconds.
    ///
    /// # Errors
    /// Every fault, each with a pointer into the request, and the line and column of the template.
    fn rehearse(&self, _settings: &Settings) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    /// Returns the secret fields of the settings. Deadbeat seals them in the database, masks them in every answer,
    /// and removes them from the details of attempts.
    fn secrets(&self) -> &'static [&'static str];

    /// Returns the host to which attempts go: one host may use a limited number of slots. None: the settings do not
    /// name it. The settings may hold the mask of a secret address, which has the same host.
    fn host(&self, settings: &Settings) -> Option<String>;

    /// Returns where the secrets go. A change that keeps a secret must keep the destination, too. Otherwise a member who may change a
    /// channel could have its secrets sent to a host of their own, although nobody may read them.
    fn destination(&self, settings: &Settings) -> Option<String> {
        self.host(settings)
    }

    /// Makes the secret with which a new channel signs its messages. None: the kind does not sign.
    fn signing_secret(&self) -> Option<String> {
        None
    }

    /// True if each attempt shows the receiver the identity of this server: [`Signed::identity`].
    fn shows_identity(&self) -> bool {
        false
    }

    /// Makes the sender of this process.
    ///
    /// # Errors
    /// If a setting of the operator is wrong.
    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError>;

    /// The conformance test. It sends every kind of message to a local receiver, checks each field against the
    /// service's documentation, and simulates failures. A kind without this test does not compile.
    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()>;
}

/// The parts that senders need.
pub struct Parts<'a> {
    /// The client for addresses that people enter.
    pub outbound: &'a Outbound,
    /// The operator's mail server, if there is one.
    pub smtp: Option<&'a SmtpSettings>,
}

/// Reads settings as the type of their kind.
///
/// # Errors
/// The error of serde, with a pointer to the settings.
pub(crate) fn read<'a, T: Deserialize<'a>>(settings: &'a Settings) -> Result<T, Vec<FieldError>> {
    settings
        .read()
        .map_err(|error| vec![FieldError::new("/settings", error.to_string())])
}

/// The input of a sender: one attempt of one delivery.
pub struct Outgoing {
    /// The delivery's id. It is the same for every attempt, so that a receiver can recognise a repetition.
    pub id: DeliveryId,
    /// The start of this attempt.
    pub attempted_at: DateTime<Utc>,
    /// The message, as of the time of its event.
    pub message: Message,
    /// The channel's settings with their secrets as plain text.
    pub settings: Settings,
    /// The secret that signs webhooks.
    pub signing_secret: Option<String>,
    /// Identifies the incident's message in the channel, as an earlier attempt returned it in [`Outcome::Sent`].
    /// None: no attempt returned one.
    pub handle: Option<Value>,
    /// What was signed for this attempt.
    pub signed: Signed,
}

/// What each attempt signs for its channel. The stored message has none of it.
#[derive(Debug, Clone, Default)]
pub struct Signed {
    /// The link by which the owner of a mail address unsubscribes. None: the channel sends no mail, or there is nothing to unsubscribe from.
    pub unsubscribe_url: Option<String>,
    /// The value of a button that acknowledges the incident. None: nobody should act on the message. Only a channel whose settings have the
    /// secret by which its service proves who pressed a button may show one.
    pub button: Option<String>,
    /// The identity of this server for push services. None: the kind shows none.
    pub identity: Option<push::web_push::Identity>,
}

impl Outgoing {
    /// Returns a text of the receiver as one line for people. Removes the channel's secrets, because the receiver
    /// knows them and may repeat them.
    #[must_use]
    pub(crate) fn excerpt(&self, text: &str, limit: usize) -> String {
        let redactor = Redactor::of(&self.settings, self.signing_secret.as_deref());
        printable(&redactor.hide(text), limit)
    }
}

/// Sends to one kind of channel.
pub trait Sender: Send + Sync {
    /// See [`Kind::name`].
    fn kind(&self) -> &'static str;

    /// Refuses settings with which no attempt can ever succeed. Makes no request on the network.
    ///
    /// # Errors
    /// The field, and what is allowed there.
    fn check(&self, _settings: &Settings) -> Result<(), FieldError> {
        Ok(())
    }

    /// Makes one attempt, within a timeout. Every failure is an [`Outcome`]. Its detail is for people and holds no
    /// secret.
    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome>;

    /// Makes one attempt to send a mail to a person, without a channel. None: this kind sends no mail.
    fn post<'a>(
        &'a self,
        _to: &'a str,
        _story: &'a Story,
        _now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Outcome>> {
        None
    }

    /// True if the operator has configured a server for [`Sender::post`].
    fn can_post(&self) -> bool {
        false
    }
}

/// The senders of this process, by kind. Cheap to clone.
#[derive(Clone)]
pub struct Senders {
    by_kind: Arc<HashMap<&'static str, Arc<dyn Sender>>>,
}

/// A wrong setting for which senders could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The HTTP client refused its settings.
    #[error("the HTTP client cannot be set up: {0}")]
    Outbound(#[from] reqwest::Error),
    /// The URL of the mail server cannot be read. The error never repeats the URL, which may hold a password.
    #[error(
        "DEADBEAT_SMTP_URL cannot be read ({0}); it is of the form smtp://host:25, smtp://user:password@host:587?tls=required or \
         smtps://user:password@host:465"
    )]
    SmtpUrl(String),
    /// The sender's mail address cannot be read.
    #[error("DEADBEAT_SMTP_FROM is not a mail address such as \"Deadbeat <deadbeat@example.org>\": {0}")]
    SmtpFrom(String),
}

impl Senders {
    /// Makes the senders of all kinds.
    ///
    /// # Errors
    /// If a setting is wrong.
    pub fn standard(outbound: &OutboundSettings, smtp: Option<&SmtpSettings>) -> Result<Self, SetupError> {
        let parts = Parts {
            outbound: &Outbound::new(outbound)?,
            smtp,
        };
        let senders: Result<Vec<_>, _> = KINDS.iter().map(|kind| kind.sender(&parts)).collect();
        Ok(Self::of(senders?))
    }

    /// Makes a set of only these senders, for tests.
    #[must_use]
    pub fn of(senders: impl IntoIterator<Item = Arc<dyn Sender>>) -> Self {
        Self {
            by_kind: Arc::new(
                senders
                    .into_iter()
                    .map(|sender| (sender.kind(), sender))
                    .collect(),
            ),
        }
    }

    /// Refuses a channel's settings with which no attempt of this server can ever succeed.
    ///
    /// # Errors
    /// The field, and what is allowed there.
    pub fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        self.get(settings.kind())
            .map_or(Ok(()), |sender| sender.check(settings))
    }

    /// Makes one attempt to send a mail to a person about an account.
    pub(crate) async fn post(&self, to: &str, story: &Story, now: DateTime<Utc>) -> Outcome {
        let sender = self.get(email::NAME);
        match sender.as_ref().and_then(|sender| sender.post(to, story, now)) {
            Some(attempt) => attempt.await,
            None => answer::unusable("this process sends no mail"),
        }
    }

    /// True if this process can send mails to people about their accounts.
    #[must_use]
    pub fn can_post(&self) -> bool {
        self.get(email::NAME).is_some_and(|sender| sender.can_post())
    }

    /// Returns the sender of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<Arc<dyn Sender>> {
        self.by_kind.get(kind).cloned()
    }
}

/// Returns a text from outside as one line for people, of at most `limit` characters. Unprintable characters become
/// spaces.
#[must_use]
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let spaced: String = replaced(text, ' ')
        .map(|c| if c == char::REPLACEMENT_CHARACTER { ' ' } else { c })
        .collect();
    let line = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    line.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_kind_conforms() {
        for kind in KINDS {
            kind.conforms().await;
        }
    }

    #[test]
    fn names_are_distinguished_and_fit_the_database() {
        for kind in KINDS {
            assert!(
                std::ptr::addr_eq(self::kind(kind.name()).unwrap(), *kind),
                "{}",
                kind.name()
            );
            assert!(
                kind.name().len() <= 40
                    && kind
                        .name()
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}: see channel_kind_form",
                kind.name()
            );
        }
        assert!(self::kind("carrier_pigeon").is_none());
    }

    #[test]
    fn texts_from_outside_become_one_printable_line() {
        assert_eq!(
            printable("a\r\nBcc: x\0\u{1b}[31m\u{202e}b\u{2028}c\u{200b}", 100),
            "a Bcc: x [31m b c"
        );
        assert_eq!(printable("  äöü  日本  ", 100), "äöü 日本");
        assert_eq!(printable("abcdef", 4), "abc…");
        assert_eq!(printable("abcd", 4), "abcd");
    }
}
