//! Services to which channels write report who acknowledged an incident. Each row of the table in docs/alerting.md is one test.

use std::sync::Arc;

use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::alert::channel;
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::Senders;
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings};
use deadbeat_services::incident::button::Button;
use deadbeat_services::incident::callback::slack::Headers;
use deadbeat_services::incident::callback::telegram::Said;
use deadbeat_services::incident::callback::{
    CallbackError, Place, jira_service_management, pagerduty, slack as from_slack, telegram as from_telegram,
};
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_services::{ServiceError, Services};
use deadbeat_testkit::Receiver;
use futures::future::join_all;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, keyring};

mod pagers;
mod slack;
mod telegram;

use pagers::{engineer, event};

const SLACK: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const TELEGRAM: &str = "telegram-secret-token_0123";
const PAGERDUTY: &str = "pagerduty-webhook-secret-0123";
const JSM: &str = "jsm-webhook-token-0123";

fn hex_mac(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_unproved<T: std::fmt::Debug>(result: &Result<T, CallbackError>) -> bool {
    matches!(result, Err(CallbackError::Unproved))
}

impl World {
    async fn of_kind(&self, kind: &str, settings: Value) -> ChannelId {
        let written = channel::create(&self.services, &self.access, kind, "Ops", &settings).await;
        written.unwrap().channel.id
    }

    async fn slack(&self, receiver: &Receiver) -> ChannelId {
        let url = receiver.url("/services/T0/B0/abcdefghijkl");
        self.of_kind("slack", json!({"webhook_url": url, "signing_secret": SLACK}))
            .await
    }

    async fn telegram(&self) -> ChannelId {
        let settings =
            json!({"token": "123456:S3CRET", "chat_id": "-1001234567890", "secret_token": TELEGRAM});
        self.of_kind("telegram", settings).await
    }

    async fn pagerduty(&self) -> ChannelId {
        let settings =
            json!({"routing_key": "e93facc04764012d7bfb002500d5d1a6", "webhook_secret": PAGERDUTY});
        self.of_kind("pagerduty", settings).await
    }

    async fn jsm(&self, service: &str) -> ChannelId {
        let settings = json!({"api_key": "eb243592-faa2-4ba2-a551-1afdf565c889", "service": service, "webhook_token": JSM});
        self.of_kind("jira_service_management", settings).await
    }

    /// Makes a monitor fail, and returns the id of its incident.
    async fn fault(&self, name: &str) -> IncidentId {
        let monitor = self.monitor(name).await;
        self.ping(&monitor, Fail).await;
        let id: Uuid = sqlx::query_scalar("SELECT id FROM incident WHERE subject_id = $1")
            .bind(monitor.id.0)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        IncidentId(id)
    }

    async fn acknowledged_by(&self, incident: IncidentId) -> Option<String> {
        sqlx::query_scalar("SELECT acknowledged_by FROM incident WHERE id = $1")
            .bind(incident.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    fn place(&self, channel: ChannelId) -> Place {
        Place {
            project: self.project,
            channel,
        }
    }

    fn button(&self, channel: ChannelId, incident: IncidentId) -> String {
        let project = self.project;
        let button = Button {
            project,
            channel,
            incident,
        };
        button.sign(&keyring()).unwrap()
    }

    /// Returns the value of the button in the message that Slack received.
    async fn button_in_slack(&self, receiver: &Receiver) -> String {
        let outbound = OutboundSettings {
            ports: Vec::new(),
            allow_private_networks: true,
            loopback_only: true,
            user_agent: "Deadbeat/test".to_owned(),
        };
        let delivery = Delivery::new(
            self.store(),
            Arc::new(self.clock.clone()),
            Senders::standard(&outbound, None).unwrap(),
            Arc::clone(&self.bell),
            DeliverySettings::default(),
        )
        .with_keyring(keyring())
        .with_links_to(self.site.clone());
        delivery.deliver_once().await.unwrap();
        let body: Value = serde_json::from_slice(&receiver.requests().pop().unwrap().body).unwrap();
        let element = &body["attachments"][0]["blocks"][1]["elements"][0];
        element["value"].as_str().unwrap().to_owned()
    }
}

/// Users of the service choose their names freely.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_name_from_a_service_is_one_printable_line(pool: PgPool) {
    let world = World::new(pool).await;
    let pager = world.pagerduty().await;
    for (name, words) in [
        (
            "Ann\r\nBcc: x\u{202e}\0\u{1b}[31m".to_owned(),
            "Ann Bcc: x [31m in PagerDuty".to_owned(),
        ),
        ("x".repeat(5_000), format!("{}… in PagerDuty", "x".repeat(99))),
        (" \n ".to_owned(), "somebody in PagerDuty".to_owned()),
    ] {
        let incident = world.fault(&Uuid::new_v4().to_string()).await;
        let body = event(
            "incident.acknowledged",
            &json!(incident),
            &json!({"summary": name}),
        );
        let good = format!("v1={}", hex_mac(PAGERDUTY, &body));

        pagerduty::happened(&world.services, world.place(pager), &good, body.as_bytes())
            .await
            .unwrap();

        assert_eq!(world.acknowledged_by(incident).await, Some(words));
    }
}

/// The database holds the secrets sealed, and an answer masks them. A server without the key asks the service to try again.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn secrets_that_prove_callbacks_are_sealed(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let pager = world.pagerduty().await;
    for channel in [
        world.slack(&receiver).await,
        world.telegram().await,
        pager,
        world.jsm("opsgenie").await,
    ] {
        let (row, settings): (String, Value) =
            sqlx::query_as("SELECT channel::text, settings FROM channel WHERE id = $1")
                .bind(channel.0)
                .fetch_one(&world.pool)
                .await
                .unwrap();
        for secret in [SLACK, TELEGRAM, PAGERDUTY, JSM] {
            assert!(!row.contains(secret), "{row}");
        }
        let shown = settings.to_string();
        assert!(shown.contains("…85a5") || shown.contains("…0123"), "{shown}");
    }
    // A change without the secret keeps the secret.
    let moved = json!({"routing_key": "a93facc04764012d7bfb002500d5d1a6"});
    channel::update(&world.services, &world.access, pager, None, Some(&moved))
        .await
        .unwrap();
    let incident = world.fault("backup").await;
    let body = event("incident.acknowledged", &json!(incident), &engineer());
    let good = format!("v1={}", hex_mac(PAGERDUTY, &body));
    let without = world.services.clone().with_keyring(Keyring::default());
    let away = pagerduty::happened(&without, world.place(pager), &good, body.as_bytes()).await;
    assert!(
        matches!(away, Err(CallbackError::Service(ServiceError::KeyMissing(_)))),
        "{away:?}"
    );

    pagerduty::happened(&world.services, world.place(pager), &good, body.as_bytes())
        .await
        .unwrap();

    assert!(world.acknowledged_by(incident).await.is_some());
}
