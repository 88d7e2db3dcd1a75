//! Mail, through the operator's SMTP server.

pub mod mail;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deadbeat_domain::alert::channel::{Settings, is_email, is_mailable};
use deadbeat_domain::alert::delivery::Outcome;
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

use super::{Kind, Outgoing, Parts, Sender, SetupError, printable, read};

const NAME: &str = "email";
/// For one mail, from the connection to the server's last word.
const TOTAL: Duration = Duration::from_secs(10);
/// Of what the server says, this much is shown to people.
const EXCERPT_CHARS: usize = 200;

/// The operator's SMTP server.
#[derive(Clone)]
pub struct SmtpSettings {
    /// `smtp://host:25`, `smtp://user:password@host:587?tls=required` (STARTTLS), `smtps://user:password@host:465`.
    pub url: String,
    /// From whom mails come, such as `Deadbeat <deadbeat@example.org>`.
    pub from: String,
}

/// The URL holds a password.
impl fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpSettings")
            .field("url", &"…")
            .field("from", &self.from)
            .finish()
    }
}

/// Where a mail goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// One address.
    pub to: String,
}

impl From<EmailSettings> for Settings {
    fn from(settings: EmailSettings) -> Self {
        Self::new(NAME, Map::from_iter([("to".to_owned(), settings.to.into())]))
    }
}

/// The address of a mail channel. None: the channel is of another kind.
pub(crate) fn address(settings: &Settings) -> Option<String> {
    let EmailSettings { to } = settings.read().ok()?;
    (settings.kind() == NAME).then_some(to)
}

/// The kind.
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
    /// None: the operator has not set a server up.
    smtp: Option<Smtp>,
}

struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Email {
    /// Through this server; without one, mails wait in the outbox until there is one.
    ///
    /// # Errors
    /// When a setting cannot be read.
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
            return failed("the channel's settings are not those of mail");
        };
        // The channel is not at fault, so it is not switched off: the alert waits for the operator, within its day.
        let Some(smtp) = &self.smtp else {
            return retry("no SMTP server is configured: set DEADBEAT_SMTP_URL");
        };
        let Ok(to) = address.parse::<Address>() else {
            return failed("the mail address cannot be read");
        };
        let mail = match compose(&outgoing, smtp.from.clone(), to) {
            Ok(mail) => mail,
            Err(error) => return retry(&format!("the mail could not be composed: {error}")),
        };
        match tokio::time::timeout(TOTAL, smtp.transport.send(mail)).await {
            Ok(Ok(response)) => Outcome::Sent {
                code: Some(u16::from(response.code()).into()),
            },
            Ok(Err(error)) => judge(error.status().map(u16::from), &error.to_string()),
            Err(_) => retry(&format!("the SMTP server took longer than {} s", TOTAL.as_secs())),
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
                "is {:?}, which no mail server takes; an address at a host name is allowed, such as ops@example.org",
                clip(&to)
            ),
        ))
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

/// The mail as it goes out. Attempts of one delivery share the Message-ID, so that a mailbox shows a repetition once, and all
/// mails of an incident refer to it, so that a reader shows them as one thread.
fn compose(outgoing: &Outgoing, from: Mailbox, to: Address) -> Result<Message, lettre::error::Error> {
    let rendered = mail::render(&outgoing.message);
    let domain = from.email.domain().to_owned();
    let mut mail = Message::builder()
        .message_id(Some(format!("<{}@{domain}>", outgoing.id)))
        .date(SystemTime::from(outgoing.attempted_at))
        .from(from)
        .to(Mailbox::new(None, to))
        .subject(rendered.subject)
        // No answering machine replies to an alert (RFC 3834).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    if let Some(incident) = outgoing.message.incident() {
        mail = mail.references(format!("<incident-{}@{domain}>", incident.id));
    }
    mail.multipart(MultiPart::alternative_plain_html(rendered.text, rendered.html))
}

/// What a refusal means. Only a mailbox that does not exist is permanent; all else may be the server's or the operator's trouble,
/// for which nobody's channel is switched off.
fn judge(code: Option<u16>, text: &str) -> Outcome {
    let detail = format!("the SMTP server refused it: {}", printable(text, EXCERPT_CHARS));
    match code {
        Some(code @ (550 | 551 | 553)) if is_about_mailbox(text) => Outcome::Failed {
            code: Some(code.into()),
            detail,
        },
        Some(code) => Outcome::Retry {
            code: Some(code.into()),
            detail,
            retry_after: None,
        },
        None => retry(&format!(
            "the SMTP server could not be used: {}",
            printable(text, EXCERPT_CHARS)
        )),
    }
}

/// Whether a 550, 551 or 553 is about the recipient's mailbox. Servers also say 550 to a sender or a policy that they do not like
/// (5.7.1, relaying denied); those that send an enhanced code (RFC 3463) tell the two apart.
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

fn retry(detail: &str) -> Outcome {
    Outcome::Retry {
        code: None,
        detail: detail.to_owned(),
        retry_after: None,
    }
}

fn failed(detail: &str) -> Outcome {
    Outcome::Failed {
        code: None,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deadbeat_domain::alert::message::Message as Alerted;
    use deadbeat_domain::ids::DeliveryId;

    use deadbeat_testkit::Inbox;
    use deadbeat_testkit::inbox::Step;

    use crate::alert::delivery::outbound::{Outbound, OutboundSettings};
    use crate::alert::outbox::samples::{self, Sample};

    fn outgoing(message: Alerted) -> Outgoing {
        Outgoing {
            id: DeliveryId("0198c0de-0000-7000-8000-000000000001".parse().unwrap()),
            attempted_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            message,
            settings: EmailSettings {
                to: "ops@example.org".to_owned(),
            }
            .into(),
            signing_secret: None,
        }
    }

    /// The form is that of RFC 5322 and MIME; `lettre` writes it, and the inbox reads it with code of its own.
    pub(super) async fn conforms() {
        let inbox = Inbox::start().await;
        let smtp = SmtpSettings {
            url: inbox.url(),
            from: "Deadbeat <deadbeat@example.org>".to_owned(),
        };
        let outbound = Outbound::new(&OutboundSettings {
            ports: Vec::new(),
            allow_private_networks: false,
            user_agent: "Deadbeat/test".to_owned(),
        })
        .unwrap();
        let parts = Parts {
            outbound: &outbound,
            smtp: Some(&smtp),
        };
        let sender = Emails.sender(&parts).unwrap();

        for message in samples::all() {
            let outcome = sender.send(outgoing(message.clone())).await;
            assert_eq!(outcome, Outcome::Sent { code: Some(250) });

            let mail = inbox.mails().pop().unwrap();
            let expected = mail::render(&message);
            assert_eq!(mail.to, ["ops@example.org"]);
            assert_eq!(mail.header("Subject"), Some(expected.subject));
            assert_eq!(mail.header("Auto-Submitted").as_deref(), Some("auto-generated"));
            assert_eq!(mail.header("References").is_some(), message.incident().is_some());
            // The line break before a boundary belongs to the boundary (RFC 2046, 5.1.1).
            for (media_type, expected) in [("text/plain", expected.text), ("text/html", expected.html)] {
                let part = mail.part(media_type).unwrap();
                assert_eq!(part.trim_end(), expected.trim_end(), "{media_type}");
            }
        }
        for (step, answer, is_permanent) in [
            (Step::Sender, "535 5.7.8 authentication failed", false),
            (Step::Recipient, "450 4.2.0 greylisted", false),
            (Step::Recipient, "550 5.7.1 relaying denied", false),
            (Step::Recipient, "550 5.1.1 no such user", true),
        ] {
            inbox.refuse(step, answer);

            let outcome = sender.send(outgoing(samples::test())).await;

            assert_eq!(
                matches!(outcome, Outcome::Failed { .. }),
                is_permanent,
                "{answer}: {outcome:?}"
            );
        }
    }

    #[test]
    fn only_a_mailbox_that_does_not_exist_is_permanent() {
        for (code, text, permanent) in [
            (550, "5.1.1 no such user", true),
            (550, "no such user", true),
            (
                550,
                "permanent error (550): mailbox unavailable at 10.0.0.1",
                true,
            ),
            (551, "5.1.6 moved", true),
            (553, "mailbox name not allowed", true),
            (550, "5.2.1 mailbox disabled", true),
            (550, "5.7.1 relaying denied", false),
            (553, "5.1.8 sender address rejected", false),
            (552, "5.2.2 mailbox full", false),
            (535, "5.7.8 authentication failed", false),
            (554, "5.7.1 spam", false),
            (450, "4.2.0 greylisted", false),
            (421, "busy", false),
        ] {
            let outcome = judge(Some(code), text);
            assert_eq!(
                matches!(outcome, Outcome::Failed { .. }),
                permanent,
                "{code} {text}: {outcome:?}"
            );
        }
        assert!(matches!(
            judge(None, "connection refused"),
            Outcome::Retry { code: None, .. }
        ));
    }

    #[tokio::test]
    async fn without_a_server_mails_wait_for_the_operator() {
        let outcome = Email::new(None).unwrap().attempt(outgoing(samples::test())).await;

        let Outcome::Retry { detail, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(detail.contains("DEADBEAT_SMTP_URL"), "{detail}");
    }

    #[test]
    fn a_name_cannot_add_a_header() {
        let mut sample = Sample::monitor();
        sample.incident.subject.name = "x\r\nBcc: all@example.org\r\n\r\nbody".to_owned();

        let mail = compose(
            &outgoing(sample.opened()),
            "d@example.org".parse().unwrap(),
            "ops@example.org".parse().unwrap(),
        )
        .unwrap();

        let formatted = String::from_utf8(mail.formatted()).unwrap();
        let head = formatted.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(
            head.contains("Subject: [Deadbeat] DOWN: x Bcc: all@example.org body (MISSED)"),
            "{head}"
        );
        assert!(
            head.contains("Message-ID: <0198c0de-0000-7000-8000-000000000001@example.org>"),
            "{head}"
        );
        assert!(head.contains("Date: Fri, 02 Jan 2026 03:04:05 +0000"), "{head}");
    }

    #[test]
    fn settings_are_checked_and_keep_their_password_to_themselves() {
        let good = SmtpSettings {
            url: "smtp://me:hunter2@mail.example.org:587?tls=required".to_owned(),
            from: "d@example.org".to_owned(),
        };
        let bad_url = SmtpSettings {
            url: "http://me:hunter2@mail.example.org".to_owned(),
            ..good.clone()
        };
        let bad_from = SmtpSettings {
            from: "nobody".to_owned(),
            ..good.clone()
        };

        assert!(Email::new(Some(&good)).is_ok());
        let errors = [
            Email::new(Some(&bad_url)).err().unwrap(),
            Email::new(Some(&bad_from)).err().unwrap(),
        ];
        assert!(matches!(
            errors,
            [SetupError::SmtpUrl(_), SetupError::SmtpFrom(_)]
        ));
        for shown in [
            format!("{good:?}"),
            errors[0].to_string(),
            format!("{:?}", errors[0]),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
