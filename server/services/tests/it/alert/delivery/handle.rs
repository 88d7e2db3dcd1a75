//! Handles: where the service can change messages, one incident is one message.

use std::sync::Mutex;

use deadbeat_domain::alert::delivery::{HANDLE_BYTES, Reason};
use deadbeat_services::alert::delivery::senders::{Outgoing, Sender};
use futures::future::BoxFuture;

use super::*;

/// A service that numbers its messages and records which message it was asked to change.
#[derive(Default)]
struct Numbering {
    changed: Mutex<Vec<Option<Value>>>,
    size: usize,
}

impl Sender for Numbering {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let mut changed = self.changed.lock().unwrap();
            changed.push(outgoing.handle.clone());
            let new = json!({"message": changed.len(), "filling": "x".repeat(self.size)});
            Outcome::Sent {
                code: None,
                handle: outgoing.handle.or(Some(new)),
            }
        })
    }
}

async fn alerted(pool: PgPool, size: usize) -> Vec<Option<Value>> {
    let world = World::new(pool).await;
    let [one, other] = [
        world.webhook("http://example.org/1".to_owned()).await,
        world.webhook("http://example.org/2".to_owned()).await,
    ];
    let service = Arc::new(Numbering {
        size,
        ..Numbering::default()
    });
    let delivery = world.delivery_with(
        Senders::of([Arc::clone(&service) as Arc<dyn Sender>]),
        DeliverySettings::default(),
    );
    let incident = world.incident_with("a cause", Vec::new()).await;
    for channel in [one, other] {
        for phase in [Phase::Opened, Phase::Acknowledged, Phase::Resolved] {
            world.alert_channel(channel, &incident, phase).await;
            assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));
        }
    }
    world.test(one).await;
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));
    service.changed.lock().unwrap().clone()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn later_alerts_of_an_incident_get_the_message_of_their_channel(pool: PgPool) {
    let message = |number: u32| Some(json!({"message": number, "filling": ""}));

    assert_eq!(
        alerted(pool, 0).await,
        [None, message(1), message(1), None, message(4), message(4), None]
    );
}

/// The length limit keeps a service from filling the database.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_handle_that_is_too_long_is_not_kept(pool: PgPool) {
    assert_eq!(alerted(pool, HANDLE_BYTES).await, vec![None; 7]);
}

/// The labels appear in attempts, in metrics, in the contract and in the documents.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_failed_attempt_has_a_label(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver.then(Reply::status(401)).then(Reply::close());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();

    for _ in 0..3 {
        delivery.deliver_once().await.unwrap();
        world.clock.advance(TimeDelta::minutes(1));
    }

    let labels: Vec<Option<String>> = world
        .attempts(id)
        .await
        .into_iter()
        .map(|attempt| attempt.reason)
        .collect();
    assert_eq!(
        labels,
        [Some("auth".to_owned()), Some("connection".to_owned()), None]
    );
    let figures = delivery.figures();
    for reason in Reason::ALL {
        let expected = u64::from(matches!(reason, Reason::Auth | Reason::Connection));
        assert_eq!(figures.failed(reason), expected, "{reason:?}");
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let page = std::fs::read_to_string(format!("{root}/docs/alerting.md")).unwrap();
    let contract = std::fs::read_to_string(format!("{root}/openapi.yaml")).unwrap();
    let names = Reason::ALL.map(Reason::as_str).join(", ");
    assert!(
        contract.contains(&format!("enum: [{names}, null]")),
        "openapi.yaml"
    );
    for reason in Reason::ALL {
        assert!(
            page.contains(&format!("\n| `{}` | ", reason.as_str())),
            "docs/alerting.md: {reason:?}"
        );
    }
}
