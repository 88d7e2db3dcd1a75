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
        handle: None,
        signed: super::super::Signed::default(),
    }
}

/// Checks the form by RFC 5322 and MIME: `lettre` writes the mail, and separate code reads it.
pub(super) async fn conforms() {
    let inbox = Inbox::start().await;
    let smtp = SmtpSettings {
        url: inbox.url(),
        from: "Deadbeat <deadbeat@example.org>".to_owned(),
    };
    let outbound = Outbound::new(&OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: false,
        loopback_only: false,
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
        assert_eq!(
            outcome,
            Outcome::Sent {
                code: Some(250),
                handle: None
            }
        );

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
        let outcome = judge(Reason::Connection, Some(code), text);
        assert_eq!(
            matches!(outcome, Outcome::Failed { .. }),
            permanent,
            "{code} {text}: {outcome:?}"
        );
    }
    assert!(matches!(
        judge(Reason::Connection, None, "connection refused"),
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

/// RFC 8058, 3.1: the link and the word that one POST is enough, each in one piece, and only by https.
#[test]
fn a_mail_says_how_it_is_unsubscribed() {
    let composed = |url: Option<&str>| {
        let mut outgoing = outgoing(samples::disabled());
        outgoing.signed.unsubscribe_url = url.map(str::to_owned);
        let (from, to) = (
            "d@example.org".parse().unwrap(),
            "ops@example.org".parse().unwrap(),
        );
        let mail = compose(&outgoing, from, to).unwrap().formatted();
        String::from_utf8(mail).unwrap()
    };
    let link = format!(
        "https://deadbeat.test/unsubscribe/x?project=y&token={}",
        "a".repeat(300)
    );

    let mail = composed(Some(&link));
    assert!(
        mail.contains(&format!("List-Unsubscribe: <{link}>\r\n"))
            || mail.contains(&format!("List-Unsubscribe:\r\n <{link}>\r\n")),
        "{mail}"
    );
    assert!(
        mail.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"),
        "{mail}"
    );
    let plain = composed(Some("http://127.0.0.1/unsubscribe/x"));
    assert!(plain.contains("List-Unsubscribe: <http://127.0.0.1/unsubscribe/x>\r\n"));
    assert!(!plain.contains("List-Unsubscribe-Post"));
    assert!(!composed(None).contains("nsubscribe"));
}
