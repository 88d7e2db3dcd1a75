//! The way from the outbox to a channel: a real database, real receivers, a stopped clock.

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
use deadbeat_domain::alert::Alert;
use deadbeat_domain::cause::Cause;
use deadbeat_domain::channel::{EmailSettings, Settings, WebhookSettings};
use deadbeat_domain::delivery::Outcome;
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, ProjectId};
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_domain::time::Clock;
use deadbeat_services::delivery::outbound::OutboundSettings;
use deadbeat_services::delivery::senders::email::SmtpSettings;
use deadbeat_services::delivery::senders::{Outgoing, Sender, Senders, webhook};
use deadbeat_services::delivery::{Delivery, DeliverySettings, Progress};
use deadbeat_store::attempt::{self, Attempt};
use deadbeat_store::channel::{self, Channel};
use deadbeat_store::delivery::{self, Filter, Settle};
use deadbeat_store::incident::{self, Incident};
use deadbeat_store::page::Page;
use deadbeat_store::project::{self, Project};
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

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// For events that come at once when all is well.
const LIMIT: Duration = Duration::from_secs(10);

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

    /// One that may reach this machine: the receivers are there.
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
        self.channel("hook", Settings::Webhook(WebhookSettings { url }))
            .await
    }

    async fn email(&self) -> ChannelId {
        self.channel(
            "mail",
            Settings::Email(EmailSettings {
                to: "ops@example.org".to_owned(),
            }),
        )
        .await
    }

    async fn channel(&self, name: &str, settings: Settings) -> ChannelId {
        let now = self.clock.now();
        let channel = Channel {
            id: ChannelId::generate(),
            project_id: self.project,
            name: name.to_owned(),
            signing_secret: matches!(settings, Settings::Webhook(_)).then(|| SECRET.to_owned()),
            settings,
            disabled: None,
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.store.begin().await.unwrap();
        channel::insert(&mut tx, &channel).await.unwrap();
        tx.commit().await.unwrap();
        channel.id
    }

    async fn test(&self, channel: ChannelId) -> DeliveryId {
        self.enqueue(channel, None, Alert::Test, json!({"type": "channel.test"}))
            .await
    }

    async fn enqueue(
        &self,
        channel: ChannelId,
        incident: Option<IncidentId>,
        alert: Alert,
        payload: Value,
    ) -> DeliveryId {
        let mut tx = self.store.begin().await.unwrap();
        let now = self.clock.now();
        let made = delivery::enqueue(&mut tx, self.project, incident, alert, &payload, &[channel], now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        made[0]
    }

    async fn incident(&self) -> IncidentId {
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
            summary: "nightly-report did not report.".to_owned(),
            evidence: Vec::new(),
            repair: Vec::new(),
            opened_at: self.clock.now(),
            resolved_at: None,
            acknowledged_at: None,
            remind_at: None,
        };
        let mut tx = self.store.begin().await.unwrap();
        assert!(incident::open(&mut tx, &incident).await.unwrap());
        tx.commit().await.unwrap();
        id
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

    /// Why a channel is switched off.
    async fn disabled(&self, id: ChannelId) -> Option<String> {
        channel::get(&self.reader(), self.project, id)
            .await
            .unwrap()
            .unwrap()
            .disabled
            .map(|(_, reason)| reason)
    }

    /// Waits until a delivery is settled, by asking the database: the end of a settlement is seen nowhere else.
    async fn settled(&self, id: DeliveryId) {
        let wait = async {
            while self.row(id).await.settled_at.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("it is settled in time");
    }
}

fn senders(allow_private_networks: bool, smtp: Option<&SmtpSettings>) -> Senders {
    let outbound = OutboundSettings {
        allow_private_networks,
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

/// Checks a request as a receiver does that follows the convention.
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

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_alert_is_sent_once_and_signed(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook?team=ops")).await;
    let payload = json!({"type": "incident.opened", "incident": {"subject": {"name": "nächtlich"}}});
    let id = world.enqueue(channel, None, Alert::Test, payload.clone()).await;
    let delivery = world.delivery();

    let first = delivery.deliver_once().await.unwrap();
    let second = delivery.deliver_once().await.unwrap();

    assert_eq!((first, second), (sent(1), Progress::default()));
    let [request] = receiver.requests().try_into().unwrap();
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/hook?team=ops")
    );
    assert_eq!(request.header("webhook-id"), Some(id.to_string().as_str()));
    assert_eq!(
        request.header("webhook-timestamp"),
        Some(world.clock.now().timestamp().to_string().as_str())
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some("Deadbeat/test"));
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), payload);
    assert_signed(&request);
    assert_eq!(world.status(id).await, "sent");
    let [attempt] = world.attempts(id).await.try_into().unwrap();
    assert_eq!(
        (attempt.number, attempt.outcome.as_str(), attempt.response_code),
        (1, "sent", Some(200))
    );
    assert_eq!(attempt.started_at, world.clock.now());
    assert_eq!(
        (delivery.figures().sent(), delivery.last_success_at()),
        (1, Some(world.clock.now()))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_passing_failure_is_tried_again_under_the_same_id(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver
        .then(Reply::status(500).body("out\r\nof \0 order"))
        .then(Reply::close());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();
    let began = world.clock.now();

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    let due = world.row(id).await.next_attempt_at.unwrap();
    world.clock.set(due - TimeDelta::microseconds(1));
    assert_eq!(delivery.deliver_once().await.unwrap(), Progress::default());
    world.clock.set(due);
    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    world.clock.advance(TimeDelta::seconds(10));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let wait = (due - began).num_milliseconds();
    assert!((1_600..=2_400).contains(&wait), "tried again after {wait} ms");
    let requests = receiver.requests();
    let ids: HashSet<_> = requests
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!((requests.len(), ids), (3, HashSet::from([id.to_string()])));
    assert_ne!(
        requests[0].header("webhook-timestamp"),
        requests[2].header("webhook-timestamp")
    );
    requests.iter().for_each(assert_signed);
    let attempts = world.attempts(id).await;
    let outcomes: Vec<_> = attempts
        .iter()
        .map(|a| (a.number, a.outcome.as_str(), a.response_code))
        .collect();
    assert_eq!(
        outcomes,
        [
            (1, "retry", Some(500)),
            (2, "retry", None),
            (3, "sent", Some(200))
        ]
    );
    assert_eq!(attempts[0].detail.as_deref(), Some("answered 500: out of order"));
    assert!(
        attempts[1]
            .detail
            .as_ref()
            .unwrap()
            .starts_with("no answer from 127.0.0.1"),
        "{:?}",
        attempts[1].detail
    );
    let figures = delivery.figures();
    assert_eq!((figures.sent(), figures.retried(), figures.dead()), (1, 2, 0));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_receiver_may_ask_for_more_time(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let date = (world.clock.now() + TimeDelta::seconds(120))
        .format("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    receiver.then(Reply::status(429).header("Retry-After", "90"));
    receiver.then(Reply::status(503).header("Retry-After", &date));
    let channel = world.webhook(receiver.url("/hook")).await;
    let (first, second) = (world.test(channel).await, world.test(channel).await);
    let one_by_one = DeliverySettings {
        concurrency: 1,
        ..DeliverySettings::default()
    };

    world
        .delivery_with(senders(true, None), one_by_one)
        .deliver_once()
        .await
        .unwrap();

    let waits = [world.row(first).await, world.row(second).await]
        .map(|row| (row.next_attempt_at.unwrap() - world.clock.now()).num_seconds());
    assert_eq!(HashSet::from(waits), HashSet::from([90, 120]));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_deliverers_never_send_the_same(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let mut expected = HashSet::new();
    for _ in 0..50 {
        expected.insert(world.test(channel).await.to_string());
    }
    let (one, other) = (world.delivery(), world.delivery());

    let passes = tokio::join!(
        one.deliver_once(),
        other.deliver_once(),
        one.deliver_once(),
        other.deliver_once()
    );

    let claimed = [passes.0, passes.1, passes.2, passes.3]
        .map(|pass| pass.unwrap().claimed)
        .iter()
        .sum::<usize>();
    let requests = receiver.requests();
    let ids: HashSet<_> = requests
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!((claimed, requests.len()), (50, 50));
    assert_eq!(ids, expected);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_a_dead_process_held_is_done_when_its_lease_ends(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let now = world.clock.now();
    let mut tx = world.store.begin().await.unwrap();
    let held = delivery::claim(&mut tx, now, now + TimeDelta::seconds(60), 32)
        .await
        .unwrap()
        .remove(0);
    tx.commit().await.unwrap();
    let delivery = world.delivery();

    world.clock.advance(TimeDelta::seconds(59));
    let before = delivery.deliver_once().await.unwrap();
    world.clock.advance(TimeDelta::seconds(1));
    let after = delivery.deliver_once().await.unwrap();

    assert_eq!((before, after), (Progress::default(), sent(1)));
    assert_eq!(receiver.requests().len(), 1);
    // The process was not dead after all: it learns that it has nothing to say any more.
    let mut tx = world.store.begin().await.unwrap();
    assert!(
        !delivery::settle(&mut tx, id, held.lease, Settle::Dead, world.clock.now())
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    assert_eq!(world.status(id).await, "sent");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_lease_settles_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver.then(Reply::status(410).held());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let (slow, quick) = (world.delivery(), world.delivery());

    let slow = tokio::spawn(async move { slow.deliver_once().await.unwrap() });
    receiver.wait_for(1, LIMIT).await;
    world.clock.advance(TimeDelta::seconds(61));
    assert_eq!(quick.deliver_once().await.unwrap(), sent(1));
    receiver.release();

    assert_eq!(
        slow.await.unwrap(),
        Progress {
            claimed: 1,
            unsettled: 1,
            ..Progress::default()
        }
    );
    assert_eq!(
        (world.status(id).await.as_str(), world.disabled(channel).await),
        ("sent", None)
    );
    let attempts: Vec<_> = world
        .attempts(id)
        .await
        .into_iter()
        .map(|a| (a.number, a.outcome))
        .collect();
    assert_eq!(attempts, [(2, "sent".to_owned())]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_claim_whose_lease_is_nearly_over_is_not_begun(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    world.test(channel).await;
    let short = DeliverySettings {
        lease: Duration::from_secs(14),
        ..DeliverySettings::default()
    };

    let progress = world
        .delivery_with(senders(true, None), short)
        .deliver_once()
        .await
        .unwrap();

    assert_eq!(
        progress,
        Progress {
            claimed: 1,
            unsettled: 1,
            ..Progress::default()
        }
    );
    assert_eq!(receiver.connections(), 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn after_a_day_of_failures_a_delivery_is_given_up(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(503)).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();
    let began = world.clock.now();

    while let Some(due) = world.row(id).await.next_attempt_at {
        world.clock.set(due.max(began));
        assert_eq!(delivery.deliver_once().await.unwrap().claimed, 1);
    }

    let row = world.row(id).await;
    assert_eq!(row.status, "dead");
    let patience = row.settled_at.unwrap() - began;
    assert!(
        (TimeDelta::hours(22)..=TimeDelta::hours(24)).contains(&patience),
        "given up after {patience}"
    );
    assert_eq!(world.attempts(id).await.len(), receiver.requests().len());
    // The endpoint may come back: only a permanent failure switches off.
    assert_eq!(world.disabled(channel).await, None);
    assert_eq!(delivery.figures().dead(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn gone_switches_the_channel_off_and_tells_the_others(pool: PgPool) {
    let world = World::new(pool).await;
    let gone = Receiver::answering(Reply::status(410).body("moved out")).await;
    let other = Receiver::start().await;
    let channel = world.webhook(gone.url("/hook")).await;
    world.webhook(other.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), DEAD);
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    assert_eq!(world.status(id).await, "dead");
    let attempt = world.attempts(id).await.remove(0);
    assert_eq!(
        (attempt.outcome.as_str(), attempt.response_code),
        ("failed", Some(410))
    );
    let reason = world.disabled(channel).await.unwrap();
    assert!(
        reason.contains("410 Gone") && reason.contains("moved out"),
        "{reason}"
    );
    let told: Value = serde_json::from_slice(&other.requests()[0].body).unwrap();
    assert_eq!(told["type"], "channel.disabled");
    assert_eq!(
        told["channel"],
        json!({"id": channel, "name": "hook", "kind": "webhook"})
    );
    assert_eq!(
        (&told["reason"], &told["project"]["name"]),
        (&json!(reason), &json!("Shop"))
    );
    assert_eq!(gone.requests().len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_was_repaired_meanwhile_stays_on(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver.then(Reply::status(410).held());
    let channel = world.webhook(receiver.url("/old")).await;
    world.test(channel).await;
    let delivery = world.delivery();

    let pass = tokio::spawn(async move { delivery.deliver_once().await.unwrap() });
    receiver.wait_for(1, LIMIT).await;
    world.clock.advance(TimeDelta::seconds(1));
    let mut tx = world.store.begin().await.unwrap();
    let mut repaired = channel::lock(&mut tx, world.project, channel)
        .await
        .unwrap()
        .unwrap();
    repaired.settings = Settings::Webhook(WebhookSettings {
        url: receiver.url("/new"),
    });
    repaired.updated_at = world.clock.now();
    channel::update(&mut tx, &repaired).await.unwrap();
    tx.commit().await.unwrap();
    receiver.release();

    assert_eq!(pass.await.unwrap(), DEAD);
    assert_eq!(world.disabled(channel).await, None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_private_address_is_refused_and_never_connected_to(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let guarded = world.delivery_with(senders(false, None), DeliverySettings::default());

    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
    ] {
        let channel = world.webhook(format!("http://{host}:{port}/hook")).await;
        let id = world.test(channel).await;
        assert_eq!(guarded.deliver_once().await.unwrap().dead, 1, "{host}");
        let reason = world.disabled(channel).await.unwrap();
        assert_eq!(
            reason.contains("DEADBEAT_ALLOW_PRIVATE_NETWORKS"),
            host != "0.0.0.0",
            "{host}: {reason}"
        );
        assert_eq!(
            world.attempts(id).await[0].detail.as_deref(),
            Some(reason.as_str())
        );
    }

    assert_eq!(receiver.connections(), 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_redirect_is_not_followed(pool: PgPool) {
    let world = World::new(pool).await;
    let (here, there) = (Receiver::start().await, Receiver::start().await);
    here.then(Reply::status(307).header("Location", &there.url("/elsewhere")));
    let channel = world.webhook(here.url("/hook")).await;
    let id = world.test(channel).await;

    assert_eq!(world.delivery().deliver_once().await.unwrap(), RETRIED);

    assert_eq!(there.connections(), 0);
    let detail = world.attempts(id).await.remove(0).detail.unwrap();
    assert!(detail.contains("redirects are not followed"), "{detail}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_endless_answer_is_cut(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver
        .then(Reply::status(500).body(vec![b'x'; 1_000_000]))
        .then(Reply::status(202).body("so far").stalled());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    world.clock.advance(TimeDelta::seconds(5));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let attempts = world.attempts(id).await;
    assert!(attempts[0].detail.as_ref().unwrap().chars().count() < 250);
    assert_eq!(attempts[1].response_code, Some(202));
    // Not read at all: its rest would have been waited for.
    assert!(attempts[1].duration_ms < 5_000, "{} ms", attempts[1].duration_ms);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_endpoint_that_never_answers_is_given_up_for_now(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(200).held()).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let impatient = DeliverySettings {
        send_limit: Duration::from_millis(200),
        ..DeliverySettings::default()
    };

    assert_eq!(
        world
            .delivery_with(senders(true, None), impatient)
            .deliver_once()
            .await
            .unwrap(),
        RETRIED
    );

    assert!(
        world.attempts(id).await[0]
            .detail
            .as_ref()
            .unwrap()
            .starts_with("not done within")
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slow_endpoint_holds_up_no_other_and_a_stop_waits_for_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (slow, quick) = (
        Receiver::answering(Reply::status(200).held()).await,
        Receiver::start().await,
    );
    let slow_one = world.test(world.webhook(slow.url("/hook")).await).await;
    let quick_channel = world.webhook(quick.url("/hook")).await;
    world.test(quick_channel).await;
    // No poll helps here: it is the bell that is heard while an attempt is under way.
    let settings = DeliverySettings {
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(world.delivery_with(senders(true, None), settings));
    let stop = CancellationToken::new();

    let running = tokio::spawn({
        let (delivery, stop) = (Arc::clone(&delivery), stop.clone());
        async move { delivery.run(stop).await }
    });
    slow.wait_for(1, LIMIT).await;
    quick.wait_for(1, LIMIT).await;
    let late_one = world.test(quick_channel).await;
    world.wake.notify_one();
    quick.wait_for(2, LIMIT).await;
    world.settled(late_one).await;

    assert_eq!(world.status(slow_one).await, "pending");
    stop.cancel();
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    slow.release();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    assert_eq!(world.status(slow_one).await, "sent");
    assert_eq!(delivery.figures().sent(), 3);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_backlog_is_worked_off_without_waiting(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(200).held()).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    for _ in 0..30 {
        world.test(channel).await;
    }
    let settings = DeliverySettings {
        batch: 4,
        concurrency: 6,
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = world.delivery_with(senders(true, None), settings);
    let stop = CancellationToken::new();

    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });

    // As many at once as there may be, before any has ended; then the rest.
    receiver.wait_for(6, LIMIT).await;
    receiver.release();
    receiver.wait_for(30, LIMIT).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_bell_wakes_the_loop(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let settings = DeliverySettings {
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = world.delivery_with(senders(true, None), settings);
    let (figures, stop) = (delivery.figures(), CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });
    let first_pass = async {
        while figures.last_pass_at().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, first_pass).await.unwrap();

    world.test(channel).await;
    world.wake.notify_one();

    receiver.wait_for(1, LIMIT).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_database_that_is_away_ends_neither_the_loop_nor_its_stop(pool: PgPool) {
    let world = World::new(pool).await;
    let delivery = world.delivery();
    world.pool.close().await;
    let stop = CancellationToken::new();

    assert!(delivery.deliver_once().await.unwrap_err().is_unavailable());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }

    assert!(!running.is_finished());
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_is_opened_before_it_is_resolved(pool: PgPool) {
    let world = World::new(pool).await;
    let (sick, well) = (Receiver::start().await, Receiver::start().await);
    sick.then(Reply::status(500));
    let channels = [
        world.webhook(sick.url("/hook")).await,
        world.webhook(well.url("/hook")).await,
    ];
    let incident = world.incident().await;
    for (alert, kind) in [
        (Alert::Opened, "incident.opened"),
        (Alert::Resolved, "incident.resolved"),
    ] {
        for channel in channels {
            world
                .enqueue(channel, Some(incident), alert, json!({"type": kind}))
                .await;
        }
    }
    let delivery = world.delivery();
    let kinds = |receiver: &Receiver| -> Vec<String> {
        let body = |request: &Request| serde_json::from_slice::<Value>(&request.body).unwrap();
        receiver
            .requests()
            .iter()
            .map(|request| body(request)["type"].as_str().unwrap().to_owned())
            .collect()
    };

    let first = delivery.deliver_once().await.unwrap();
    let second = delivery.deliver_once().await.unwrap();
    let (sick_waits, well_done) = (kinds(&sick), kinds(&well));
    world.clock.advance(TimeDelta::seconds(3));
    let third = delivery.deliver_once().await.unwrap();
    let fourth = delivery.deliver_once().await.unwrap();

    assert_eq!(
        first,
        Progress {
            claimed: 2,
            sent: 1,
            retried: 1,
            ..Progress::default()
        }
    );
    assert_eq!([second, third, fourth], [sent(1), sent(1), sent(1)]);
    assert_eq!(sick_waits, ["incident.opened"]);
    assert_eq!(well_done, ["incident.opened", "incident.resolved"]);
    assert_eq!(
        kinds(&sick),
        ["incident.opened", "incident.opened", "incident.resolved"]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_row_that_cannot_be_read_holds_up_no_other(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let broken = world.webhook(receiver.url("/broken")).await;
    let good = world.webhook(receiver.url("/good")).await;
    let bad_one = world.test(broken).await;
    world.clock.advance(TimeDelta::seconds(1));
    let good_ones = [world.test(good).await, world.test(good).await];
    sqlx::query("UPDATE channel SET settings = '{}' WHERE id = $1")
        .bind(broken.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(2));
    assert_eq!(delivery.deliver_once().await.unwrap(), Progress::default());

    for id in good_ones {
        assert_eq!(world.status(id).await, "sent");
    }
    assert_eq!(
        (
            world.status(bad_one).await.as_str(),
            delivery.figures().put_aside()
        ),
        ("pending", 1)
    );
    assert!(receiver.requests().iter().all(|request| request.path == "/good"));
}

/// Fails as a bug does.
struct Panicking;

impl Sender for Panicking {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn send(&self, _: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async { panic!("a bug in a sender; this panic is part of a test") })
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sender_that_panics_costs_an_attempt_and_no_more(pool: PgPool) {
    let world = World::new(pool).await;
    let id = world
        .test(world.webhook("http://example.org/".to_owned()).await)
        .await;
    let delivery = world.delivery_with(
        Senders::of([Arc::new(Panicking) as Arc<dyn Sender>]),
        DeliverySettings::default(),
    );

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);

    assert!(
        world.attempts(id).await[0]
            .detail
            .as_ref()
            .unwrap()
            .contains("a fault in Deadbeat")
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_deleted_while_it_is_sent_to_is_no_trouble(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(410).held()).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    world.test(channel).await;
    let delivery = world.delivery();

    let pass = tokio::spawn(async move { delivery.deliver_once().await.unwrap() });
    receiver.wait_for(1, LIMIT).await;
    let mut tx = world.store.begin().await.unwrap();
    assert!(channel::delete(&mut tx, world.project, channel).await.unwrap());
    tx.commit().await.unwrap();
    receiver.release();

    assert_eq!(
        pass.await.unwrap(),
        Progress {
            claimed: 1,
            unsettled: 1,
            ..Progress::default()
        }
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mail_arrives_with_text_and_html(pool: PgPool) {
    let world = World::new(pool).await;
    let inbox = Inbox::start().await;
    let channel = world.email().await;
    let incident = world.incident().await;
    let at = |seconds| (world.clock.now() + TimeDelta::seconds(seconds)).to_rfc3339();
    let payload = json!({
        "type": "incident.opened",
        "timestamp": at(0),
        "incident": {
            "id": incident,
            "subject": {"kind": "monitor", "id": incident, "name": "nightly-report"},
            "cause": {"code": "MISSED", "summary": "Es kam keine Meldung für nightly-report <b>."},
            "repair": [{"text": "See the queues.", "command": "celery -A shop inspect active_queues"}],
            "opened_at": at(0),
        },
        "monitor": null,
    });
    let mut resolved = payload.clone();
    resolved["type"] = json!("incident.resolved");
    resolved["incident"]["resolved_at"] = json!(at(300));
    let id = world
        .enqueue(channel, Some(incident), Alert::Opened, payload)
        .await;
    world
        .enqueue(channel, Some(incident), Alert::Resolved, resolved)
        .await;
    let delivery = world.delivery_with(mailing(&inbox), DeliverySettings::default());

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let [opened, resolved] = inbox.mails().try_into().unwrap();
    assert_eq!(
        (opened.from.as_str(), &opened.to),
        ("deadbeat@example.org", &vec!["ops@example.org".to_owned()])
    );
    assert_eq!(
        opened.header("Subject").as_deref(),
        Some("[Deadbeat] DOWN: nightly-report (MISSED)")
    );
    assert_eq!(
        resolved.header("Subject").as_deref(),
        Some("[Deadbeat] RESOLVED: nightly-report after 5 min")
    );
    assert_eq!(opened.header("Message-ID"), Some(format!("<{id}@example.org>")));
    assert_eq!(opened.header("References"), resolved.header("References"));
    assert_eq!(opened.header("Auto-Submitted").as_deref(), Some("auto-generated"));
    let (text, html) = (
        opened.part("text/plain").unwrap(),
        opened.part("text/html").unwrap(),
    );
    assert!(
        text.contains("Es kam keine Meldung für nightly-report <b>.\n"),
        "{text}"
    );
    assert!(
        text.contains("Down since: 2026-01-15 12:00:00 UTC")
            && text.contains("celery -A shop inspect active_queues"),
        "{text}"
    );
    assert!(
        html.contains("<p>Es kam keine Meldung für nightly-report &lt;b&gt;.</p>"),
        "{html}"
    );
    let attempt = world.attempts(id).await.remove(0);
    assert_eq!(
        (attempt.outcome.as_str(), attempt.response_code),
        ("sent", Some(250))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mailbox_that_is_busy_is_tried_again_and_one_that_is_gone_is_not(pool: PgPool) {
    let world = World::new(pool).await;
    let inbox = Inbox::start().await;
    inbox
        .refuse(Step::Recipient, "450 4.2.0 greylisted")
        .refuse(Step::Sender, "550 5.7.1 relaying denied");
    inbox.refuse(Step::Recipient, "550 5.1.1 no such user");
    let other = Receiver::start().await;
    let channel = world.email().await;
    world.webhook(other.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery_with(mailing(&inbox), DeliverySettings::default());

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    world.clock.advance(TimeDelta::seconds(5));
    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    assert_eq!(world.disabled(channel).await, None);
    world.clock.advance(TimeDelta::seconds(10));
    assert_eq!(delivery.deliver_once().await.unwrap(), DEAD);
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let codes: Vec<_> = world
        .attempts(id)
        .await
        .iter()
        .map(|attempt| attempt.response_code.unwrap())
        .collect();
    assert_eq!(codes, [450, 550, 550]);
    let reason = world.disabled(channel).await.unwrap();
    assert!(reason.contains("5.1.1 no such user"), "{reason}");
    assert!(inbox.mails().is_empty());
    assert!(other.requests()[0].text().contains("no such user"));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn mails_wait_for_an_operator_who_has_no_server_yet(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.email().await;
    let id = world.test(channel).await;

    assert_eq!(world.delivery().deliver_once().await.unwrap(), RETRIED);
    let inbox = Inbox::start().await;
    world.clock.advance(TimeDelta::seconds(5));
    let progress = world
        .delivery_with(mailing(&inbox), DeliverySettings::default())
        .deliver_once()
        .await
        .unwrap();

    assert_eq!(progress, sent(1));
    assert_eq!(inbox.mails().len(), 1);
    assert_eq!(world.disabled(channel).await, None);
    let detail = world.attempts(id).await.remove(0).detail.unwrap();
    assert_eq!(detail, "no SMTP server is configured: set DEADBEAT_SMTP_URL");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_new_channel_can_sign(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let secret = webhook::signing_secret();
    sqlx::query("UPDATE channel SET signing_secret = $2 WHERE id = $1")
        .bind(channel.0)
        .bind(&secret)
        .execute(&world.pool)
        .await
        .unwrap();
    world.test(channel).await;

    assert_eq!(world.delivery().deliver_once().await.unwrap(), sent(1));

    let before: DateTime<Utc> = world.clock.now();
    assert_eq!(
        receiver.requests()[0].header("webhook-timestamp"),
        Some(before.timestamp().to_string().as_str())
    );
}
