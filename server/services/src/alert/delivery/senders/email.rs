//! Mail, through the operator's SMTP server.

pub mod mail;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use deadbeat_domain::alert::channel::{Settings, is_email, is_mailable};
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_domain::text::Text;
use futures::future::BoxFuture;
use lettre::address::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::answer::{misfit, unusable};
use super::{Kind, Outgoing, Parts, Sender, SetupError, printable, read};
use crate::alert::delivery::story::Story;

pub(super) const NAME: &str = "email";
/// Timeout of one mail, from the connection to the server's last reply.
const TOTAL: Duration = Duration::from_secs(10);
/// Number of characters of the server's reply that people see.
const EXCERPT_CHARS: usize = 200;

/// The operator's SMTP server.
#[derive(Clone)]
pub struct SmtpSettings {
    /// `smtp://host:25`, `smtp://user:password@host:587?tls=required` (STARTTLS), `smtps://user:password@host:465`.
    pub url: String,
    /// The sender's address, such as `Deadbeat <deadbeat@example.org>`.
    pub from: String,
}

/// Hides the URL, which holds a password.
impl fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpSettings")
            .field("url", &"…")
            .field("from", &self.from)
            .finish()
    }
}

/// Settings of a mail channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// The one address to which mails go.
    pub to: String,
}

impl From<EmailSettings> for Settings {
    fn from(settings: EmailSettings) -> Self {
        Self::new(NAME, Map::from_iter([("to".to_owned(), settings.to.into())]))
    }
}

/// Returns the address of a mail channel. None: the channel is of another kind.
pub(crate) fn address(settings: &Settings) -> Option<String> {
    let EmailSettings { to } = settings.read().ok()?;
    (settings.kind() == NAME).then_some(to)
}

/// The kind `email`.
pub struct Emails;

impl Kind for Emails {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let EmailSettings { to } = read(settings)?;
        if is_email(&to) {
            return Ok(());
        }
        Err(vec![FieldError::new(
            "/settings/to",
            format!(
                "is {:?}; one mail address such as ops@example.org is allowed",
                clip(&to)
            ),
        )])
    }

    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        self.check(settings)?;
        let EmailSettings { to } = read(settings)?;
        Text::name(&to, limits::ADDRESS_CHARS)
            .map(drop)
            .map_err(|error| vec![FieldError::of_text("/settings/to", &error)])
    }

    /// An address is no secret: the members of the project see whom alerts reach.
    fn secrets(&self) -> &'static [&'static str] {
        &[]
    }

    /// Every mail goes through the operator's one server.
    fn host(&self, _: &Settings) -> Option<String> {
        Some("mail".to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(Email::new(parts.smtp)?))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

/// Sends mails.
pub struct Email {
    /// None: the operator has configured no server.
    smtp: Option<Smtp>,
}

struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Email {
    /// Makes a sender that uses this server. Without a server, mails wait in the outbox until the operator configures
    /// one.
    ///
    /// # Errors
    /// If a setting cannot be read.
    pub fn new(settings: Option<&SmtpSettings>) -> Result<Self, SetupError> {
        let smtp = settings
            .map(|settings| {
                let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&settings.url)
                    .map_err(|error| SetupError::SmtpUrl(error.to_string()))?
                    .timeout(Some(TOTAL))
                    .build();
                let from = settings
                    .from
                    .parse()
                    .map_err(|error| SetupError::SmtpFrom(format!("{error}")))?;
                Ok::<_, SetupError>(Smtp { transport, from })
            })
            .transpose()?;
        Ok(Self { smtp })
    }

    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Some(address) = address(&outgoing.settings) else {
            return misfit(NAME);
        };
        // This is not the channel's fault, so do not switch it off. The alert waits up to a day for the operator.
        let Some(smtp) = &self.smtp else {
            return retry(
                Reason::Setup,
                "no SMTP server is configured: set DEADBEAT_SMTP_URL",
            );
        };
        let Ok(to) = address.parse::<Address>() else {
            return unusable("the mail address cannot be read");
        };
        let mail = match compose(&outgoing, smtp.from.clone(), to) {
            Ok(mail) => mail,
            Err(error) => {
                return retry(
                    Reason::Internal,
                    &format!("the mail could not be composed: {error}"),
                );
            }
        };
        smtp.send(mail).await
    }

    async fn attempt_post(&self, to: &str, story: &Story, now: DateTime<Utc>) -> Outcome {
        let Some(smtp) = &self.smtp else {
            return unusable("no SMTP server is configured: set DEADBEAT_SMTP_URL");
        };
        let Ok(to) = to.parse::<Address>() else {
            return unusable("the mail address cannot be read");
        };
        let rendered = mail::render_story(story);
        let mail = Message::builder()
            .date(SystemTime::from(now))
            .from(smtp.from.clone())
            .to(Mailbox::new(None, to))
            .subject(rendered.subject)
            .raw_header(header("Auto-Submitted", "auto-generated".to_owned()))
            .multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html));
        match mail {
            Ok(mail) => smtp.send(mail).await,
            Err(error) => retry(
                Reason::Internal,
                &format!("the mail could not be composed: {error}"),
            ),
        }
    }
}

impl Smtp {
    /// Hands a mail to the server.
    async fn send(&self, mail: Message) -> Outcome {
        match tokio::time::timeout(TOTAL, self.transport.send(mail)).await {
            Ok(Ok(response)) => Outcome::Sent {
                code: Some(u16::from(response.code()).into()),
                handle: None,
            },
            Ok(Err(error)) => judge(
                without_answer(&error),
                error.status().map(u16::from),
                &error.to_string(),
            ),
            Err(_) => retry(
                Reason::Timeout,
                &format!("the SMTP server took longer than {} s", TOTAL.as_secs()),
            ),
        }
    }
}

impl Sender for Email {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        let Some(to) = address(settings) else {
            return Ok(());
        };
        if is_mailable(&to) && to.parse::<Address>().is_ok() {
            return Ok(());
        }
        Err(FieldError::new(
            "/settings/to",
            format!(
                "is {:?}, which no mail server accepts; an address at a host name is allowed, such as ops@example.org",
                clip(&to)
            ),
        ))
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }

    fn post<'a>(
        &'a self,
        to: &'a str,
        story: &'a Story,
        now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Outcome>> {
        Some(Box::pin(self.attempt_post(to, story, now)))
    }

    fn can_post(&self) -> bool {
        self.smtp.is_some()
    }
}

/// Composes the mail. All attempts of a delivery have the same Message-ID, so that a mailbox shows a repetition once.
/// All mails of an incident refer to the same id, so that mail readers show them as one thread.
fn compose(outgoing: &Outgoing, from: Mailbox, to: Address) -> Result<Message, lettre::error::Error> {
    let unsubscribe = outgoing.signed.unsubscribe_url.as_deref();
    let rendered = mail::render_with(&outgoing.message, unsubscribe);
    let domain = from.email.domain().to_owned();
    let mut mail = Message::builder()
        .message_id(Some(format!("<{}@{domain}>", outgoing.id)))
        .date(SystemTime::from(outgoing.attempted_at))
        .from(from)
        .to(Mailbox::new(None, to))
        .subject(rendered.subject)
        // Keeps automatic responders from replying to an alert (RFC 3834).
        .raw_header(header("Auto-Submitted", "auto-generated".to_owned()));
    for (name, value) in unsubscribe.map(unsubscribing).unwrap_or_default() {
        mail = mail.raw_header(header(name, value));
    }
    if let Some(incident) = outgoing.message.incident() {
        mail = mail.references(format!("<incident-{}@{domain}>", incident.id));
    }
    mail.multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html))
}

fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
}

/// The headers by which mail programs show a button that unsubscribes: the link (RFC 2369), and that a POST to it needs nothing more (RFC
/// 8058, 3.1). The latter asks for an address by https; over plain HTTP, programs open the page.
fn unsubscribing(link: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![("List-Unsubscribe", format!("<{link}>"))];
    if link.starts_with("https://") {
        headers.push(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
    }
    headers
}

/// Turns a refusal into an outcome. Only a missing mailbox is permanent. Any other refusal may be a fault of the
/// server or the operator, so it does not switch the channel off.
fn judge(unanswered: Reason, code: Option<u16>, text: &str) -> Outcome {
    let detail = format!("the SMTP server refused it: {}", printable(text, EXCERPT_CHARS));
    let reason = |code| match code {
        530 | 534 | 535 | 538 => Reason::Auth,
        500..=599 => Reason::ClientError,
        _ => Reason::ServerError,
    };
    match code {
        Some(code @ (550 | 551 | 553)) if is_about_mailbox(text) => Outcome::Failed {
            reason: reason(code),
            code: Some(code.into()),
            detail,
        },
        Some(code) => Outcome::Retry {
            reason: reason(code),
            code: Some(code.into()),
            detail,
            retry_after: None,
        },
        None => retry(
            unanswered,
            &format!(
                "the SMTP server could not be used: {}",
                printable(text, EXCERPT_CHARS)
            ),
        ),
    }
}

/// Returns the reason of an attempt to which the SMTP server gave no answer.
fn without_answer(error: &lettre::transport::smtp::Error) -> Reason {
    if error.is_tls() {
        Reason::Tls
    } else if error.is_timeout() {
        Reason::Timeout
    } else {
        Reason::Connection
    }
}

/// True if a 550, 551 or 553 is about the recipient's mailbox. Servers also answer 550 if they refuse a sender or a
/// policy (5.7.1, relaying denied). An enhanced code (RFC 3463) distinguishes these cases.
fn is_about_mailbox(text: &str) -> bool {
    let enhanced = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let mut parts = word.split('.').map(|part| part.parse::<u16>().ok());
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(Some(5)), Some(Some(subject)), Some(Some(detail)), None) => Some((subject, detail)),
                _ => None,
            }
        });
    match enhanced {
        // 1.7 and 1.8 are about the sender's address.
        Some((1, detail)) => !matches!(detail, 7 | 8),
        Some((2, detail)) => detail == 1,
        Some(_) => false,
        None => true,
    }
}

fn retry(reason: Reason, detail: &str) -> Outcome {
    Outcome::Retry {
        reason,
        code: None,
        detail: detail.to_owned(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests;
