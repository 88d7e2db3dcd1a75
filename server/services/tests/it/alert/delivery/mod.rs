//! The path from the outbox to a channel: a real database, real receivers, and a stopped clock.

#![allow(
    clippy::unwrap_used,
    reason = "in tests a panic is the report; the lint spares only the test functions themselves"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::alert::message::{Event, Message, Phase};
use deadbeat_domain::alert::recipients::Recipient;
use deadbeat_domain::alert::routing::Routing;
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Repair, Subject, SubjectKind};
use deadbeat_domain::time::Clock;
use deadbeat_services::Site;
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::email::{EmailSettings, SmtpSettings};
use deadbeat_services::alert::delivery::senders::webhook::{self, WebhookSettings};
use deadbeat_services::alert::delivery::senders::{Outgoing, Sender, Senders};
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings, Progress};
use deadbeat_services::alert::outbox::{self, IncidentAlert};
use deadbeat_store::alert::attempt::{self, Attempt};
use deadbeat_store::alert::channel::{self, Channel};
use deadbeat_store::alert::delivery::{self, Filter, NewAlert, Settle};
use deadbeat_store::incident::{self, Incident};
use deadbeat_store::page::Page;
use deadbeat_store::people::project::{self, Project};
use deadbeat_store::{Reader, Store};
use deadbeat_testkit::inbox::Step;
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Inbox, Receiver, Reply, StoppedClock};
use futures::future::BoxFuture;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod failing;
mod handle;
mod mail;
mod outbound;
mod outcome;
mod resend;
mod running;
mod stored;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The limit for events that normally come at once.
const LIMIT: Duration = Duration::from_secs(60);

/// A project with an outbox.
struct World {
    pool: PgPool,
    store: Store,
    clock: StoppedClock,
    wake: Arc<Notify>,
    project: ProjectId,
}

impl World {
    async fn new(pool: PgPool) -> Self {
        let store = Store::from_pool(pool.clone());
        let clock = StoppedClock::default();
        let project = Project {
            id: ProjectId::generate(),
            name: "Shop".to_owned(),
            reminder_seconds: None,
            created_at: clock.now(),
        };
        let mut tx = store.begin().await.unwrap();
        project::insert(&mut tx, &project).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            pool,
            store,
            clock,
            wake: Arc::default(),
            project: project.id,
        }
    }

    fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Returns a delivery loop that may reach this machine, where the receivers are.
    fn delivery(&self) -> Delivery {
        self.delivery_with(senders(true, None), DeliverySettings::default())
    }

    fn delivery_with(&self, senders: Senders, settings: DeliverySettings) -> Delivery {
        let clock = Arc::new(self.clock.clone());
        Delivery::new(
            self.store.clone(),
            clock,
            senders,
            Arc::clone(&self.wake),
            settings,
        )
    }

    async fn webhook(&self, url: String) -> ChannelId {
        self.channel("hook", WebhookSettings { url }.into()).await
    }

    async fn email(&self) -> ChannelId {
        self.channel(
            "mail",
            EmailSettings {
                to: "ops@example.org".to_owned(),
            }
            .into(),
        )
        .await
    }

    async fn channel(&self, name: &str, settings: Settings) -> ChannelId {
        let now = self.clock.now();
        let channel = Channel {
            id: ChannelId::generate(),
            project_id: self.project,
            name: name.to_owned(),
            signing_secret: (settings.kind() == "webhook").then(|| SECRET.to_owned()),
            settings,
            sealed: None,
            routing: Routing::default(),
            disabled: None,
            confirmed_at: Some(now),
            confirm_secret: None,
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.store.begin().await.unwrap();
        channel::insert(&mut tx, &channel).await.unwrap();
        tx.commit().await.unwrap();
        channel.id
    }

    async fn test(&self, channel: ChannelId) -> DeliveryId {
        let message = Message {
            at: self.clock.now(),
            event: Event::Test,
        };
        self.enqueue(channel, message).await
    }

    /// Enqueues the outbox's message about an incident for this channel.
    async fn alert_channel(&self, channel: ChannelId, incident: &Incident, phase: Phase) -> DeliveryId {
        self.enqueue(channel, self.message(incident, phase)).await
    }

    /// Returns the outbox's message about an incident.
    fn message(&self, incident: &Incident, phase: Phase) -> Message {
        let site = Site {
            url: "https://deadbeat.test".to_owned(),
        };
        let incident_alert = IncidentAlert {
            phase,
            incident,
            monitor: None,
            at: self.clock.now(),
            step: &[],
            affected: None,
        };
        outbox::compose(&site, &incident_alert, "Shop", None)
    }

    async fn enqueue(&self, channel: ChannelId, message: Message) -> DeliveryId {
        let mut tx = self.store.begin().await.unwrap();
        let now = self.clock.now();
        let alert = NewAlert {
            project_id: self.project,
            message,
            recipients: vec![Recipient::at_once(channel)],
        };
        let made = delivery::enqueue(&mut tx, &[alert], now).await.unwrap();
        tx.commit().await.unwrap();
        made[0]
    }

    async fn incident(&self) -> Incident {
        self.incident_with("nightly-report did not report.", Vec::new())
            .await
    }

    async fn incident_with(&self, summary: &str, repair: Vec<Repair>) -> Incident {
        let id = IncidentId::generate();
        let incident = Incident {
            id,
            project_id: self.project,
            subject: Subject {
                kind: SubjectKind::Monitor,
                id: id.0,
                name: "nightly-report".to_owned(),
            },
            cause: Cause::Missed,
            severity: Cause::Missed.severity(),
            summary: summary.to_owned(),
            evidence: Vec::new(),
            repair,
            opened_at: self.clock.now(),
            resolved_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            remind_at: None,
            is_inferred: false,
            is_flapping: false,
        };
        let mut tx = self.store.begin().await.unwrap();
        let opened = incident::open(&mut tx, std::slice::from_ref(&incident)).await;
        assert_eq!(opened.unwrap(), [id]);
        tx.commit().await.unwrap();
        incident
    }

    async fn row(&self, id: DeliveryId) -> delivery::Delivery {
        let filter = Filter {
            id: Some(id),
            ..Filter::default()
        };
        delivery::list(
            &self.reader(),
            self.project,
            &filter,
            Page {
                after: None,
                limit: 1,
            },
        )
        .await
        .unwrap()
        .remove(0)
    }

    async fn status(&self, id: DeliveryId) -> String {
        self.row(id).await.status
    }

    async fn attempts(&self, id: DeliveryId) -> Vec<Attempt> {
        attempt::list(&self.reader(), self.project, id).await.unwrap()
    }

    /// Returns why a channel is switched off.
    async fn disabled(&self, id: ChannelId) -> Option<String> {
        channel::get(&self.reader(), self.project, id)
            .await
            .unwrap()
            .unwrap()
            .disabled
            .map(|(_, reason)| reason)
    }

    /// Waits until a delivery is settled. Only the database shows the end of a settlement, so this queries it repeatedly.
    async fn settled(&self, id: DeliveryId) {
        let wait = async {
            while self.row(id).await.settled_at.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("the delivery is settled in time");
    }
}

fn senders(allow_private_networks: bool, smtp: Option<&SmtpSettings>) -> Senders {
    let outbound = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    };
    Senders::standard(&outbound, smtp).unwrap()
}

fn mailing(inbox: &Inbox) -> Senders {
    let smtp = SmtpSettings {
        url: inbox.url(),
        from: "Deadbeat <deadbeat@example.org>".to_owned(),
    };
    senders(true, Some(&smtp))
}

fn sent(count: usize) -> Progress {
    Progress {
        claimed: count,
        sent: count,
        ..Progress::default()
    }
}

const RETRIED: Progress = Progress {
    claimed: 1,
    sent: 0,
    retried: 1,
    dead: 0,
    unsettled: 0,
};
const DEAD: Progress = Progress {
    claimed: 1,
    sent: 0,
    retried: 0,
    dead: 1,
    unsettled: 0,
};

/// Checks a request as a receiver that follows the convention does.
fn assert_signed(request: &Request) {
    let (id, timestamp) = (
        request.header("webhook-id").unwrap(),
        request.header("webhook-timestamp").unwrap(),
    );
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{}", request.text()).as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(request.header("webhook-signature"), Some(expected.as_str()));
}
