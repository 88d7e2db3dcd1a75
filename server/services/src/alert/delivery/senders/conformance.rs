//! Common code of the kinds' conformance tests: a client for local receivers, attempts, and the failures that every
//! HTTP receiver can show.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::alert::message::Message;
use deadbeat_domain::ids::DeliveryId;
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Receiver, Reply};
use serde_json::Value;

use super::{Outgoing, Sender, Signed};
use crate::alert::delivery::outbound::{Outbound, OutboundSettings};

/// Makes a client that may connect to local receivers.
pub(super) fn outbound() -> Outbound {
    Outbound::new(&OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: true,
        user_agent: "Deadbeat/test".to_owned(),
    })
    .unwrap()
}

/// Makes an attempt for a channel with these settings.
pub(super) fn outgoing(kind: &str, settings: &Value, message: Message) -> Outgoing {
    Outgoing {
        id: DeliveryId("0198c0de-0000-7000-8000-000000000001".parse().unwrap()),
        attempted_at: "2026-01-02T03:04:05Z".parse::<DateTime<Utc>>().unwrap(),
        message,
        settings: Settings::new(kind, settings.as_object().unwrap().clone()),
        signing_secret: None,
        handle: None,
        signed: Signed::default(),
    }
}

/// Returns the body of the last request as JSON.
pub(super) fn last_json(receiver: &Receiver) -> Value {
    serde_json::from_slice(&last(receiver).body).unwrap()
}

/// Returns the last request.
pub(super) fn last(receiver: &Receiver) -> Request {
    receiver.requests().pop().unwrap()
}

/// Simulates the failures that any HTTP receiver can show, each as the first answer to an attempt. `permanent`: the
/// statuses for which this kind switches a channel off.
pub(super) async fn failures(
    receiver: &Receiver,
    sender: &dyn Sender,
    attempt: impl Fn() -> Outgoing,
    permanent: &[u16],
) {
    let private = |status| Reply::status(status).header("Location", "http://127.0.0.1:1/");
    for (reply, code, reason) in [
        (Reply::status(400), Some(400), Reason::ClientError),
        (Reply::status(401), Some(401), Reason::Auth),
        (Reply::status(403), Some(403), Reason::Auth),
        (Reply::status(404), Some(404), Reason::ClientError),
        (Reply::status(410), Some(410), Reason::ClientError),
        (
            Reply::status(429).header("Retry-After", "90"),
            Some(429),
            Reason::RateLimit,
        ),
        (Reply::status(500), Some(500), Reason::ServerError),
        (
            Reply::status(503).body("x".repeat(1 << 20)),
            Some(503),
            Reason::ServerError,
        ),
        (private(302), Some(302), Reason::Redirect),
        (private(307), Some(307), Reason::Redirect),
        (Reply::close(), None, Reason::Connection),
    ] {
        let before = receiver.requests().len();
        receiver.then(reply);

        let outcome = sender.send(attempt()).await;

        assert_eq!(receiver.requests().len(), before + 1, "{code:?}: one request");
        assert_eq!(outcome.reason(), Some(reason), "{code:?}: {outcome:?}");
        match (outcome, code) {
            (Outcome::Failed { code: found, .. }, Some(status)) => {
                assert_eq!(found, Some(i32::from(status)));
                assert!(permanent.contains(&status), "{status} is not permanent here");
            }
            (
                Outcome::Retry {
                    code: found,
                    retry_after,
                    detail,
                    ..
                },
                code,
            ) => {
                assert_eq!(found, code.map(i32::from));
                assert!(
                    code.is_none_or(|status| !permanent.contains(&status)),
                    "{code:?} is permanent"
                );
                assert_eq!(retry_after, (code == Some(429)).then(|| TimeDelta::seconds(90)));
                assert!(detail.chars().count() <= 300, "{detail}");
            }
            (outcome, _) => panic!("{code:?}: {outcome:?}"),
        }
    }
}
