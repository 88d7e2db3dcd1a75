//! A project on a database of its own, with a running group commit and an evaluator.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{ChannelId, MonitorId, ProjectId};
use deadbeat_domain::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::time::Clock;
use deadbeat_services::alert::channel;
use deadbeat_services::celery::event;
use deadbeat_services::celery::event::{EventBatch, Verdict};
use deadbeat_services::celery::trace::Traces;
use deadbeat_services::judge::evaluator::{Evaluator, Swept};
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::{Ingest, IngestError, LANES};
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::{Change, ChannelChoice};
use deadbeat_services::operation::selfwatch::Selfwatch;
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_services::{ServiceError, Services, Site, monitor};
use deadbeat_store::Store;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::people::project::Project;
use deadbeat_testkit::StoppedClock;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// One project and its surroundings.
pub struct World {
    pub pool: PgPool,
    pub clock: StoppedClock,
    pub services: Services,
    pub evaluator: Evaluator,
    pub project: ProjectId,
    /// Access to everything in the project.
    pub access: Access,
    pub bell: Arc<Notify>,
    pub site: Site,
    /// Stops the group commit at the end of the test.
    _stop: DropGuard,
}

/// An incident as the tests compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerted {
    pub subject: Uuid,
    pub cause: String,
    pub open: bool,
}

/// The keyring of every server in these tests.
pub fn keyring() -> Keyring {
    Keyring::load(&"07".repeat(32), None).unwrap()
}

impl World {
    pub async fn new(pool: PgPool) -> Self {
        let clock = StoppedClock::default();
        let store = Store::from_pool(pool.clone());
        let site = Site {
            url: "https://deadbeat.test".to_owned(),
        };
        let bell = Arc::new(Notify::new());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let selfwatch = Selfwatch::default();
        let lanes = vec![None; LANES];
        let (ingest, writers) = Ingest::new(&store, &shared, &site, &bell, Registry::default(), lanes);
        let stop = CancellationToken::new();
        tokio::spawn(writers.run(stop.clone()));
        let (traces, trace_writer) = Traces::new(&store);
        tokio::spawn(trace_writer.run(ingest.health().clone(), stop.clone()));
        let services = Services::new(
            store.clone(),
            Arc::clone(&shared),
            site.clone(),
            ingest,
            traces,
            Arc::clone(&bell),
            selfwatch.clone(),
        )
        .with_keyring(keyring());
        let project = Project {
            id: ProjectId::generate(),
            name: "A project".to_owned(),
            reminder_seconds: Some(3_600),
            created_at: clock.now(),
        };
        let mut tx = store.begin().await.unwrap();
        deadbeat_store::people::project::insert(&mut tx, &project)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let evaluator = Evaluator::new(store, shared, site.clone(), Arc::clone(&bell), selfwatch);
        let _stop = stop.drop_guard();
        Self {
            pool,
            clock,
            services,
            evaluator,
            project: project.id,
            access: Access::new(project.id, Actor::Operator),
            bell,
            site,
            _stop,
        }
    }

    /// Returns the evaluator of another process.
    pub fn another_evaluator(&self) -> Evaluator {
        let store = Store::from_pool(self.pool.clone());
        let clock = Arc::new(self.clock.clone());
        Evaluator::new(
            store,
            clock,
            self.site.clone(),
            Arc::clone(&self.bell),
            Selfwatch::default(),
        )
    }

    /// Starts the group commit of another process.
    pub fn another_ingest(&self) -> (Ingest, DropGuard) {
        let store = Store::from_pool(self.pool.clone());
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let lanes = vec![None; LANES];
        let (ingest, writers) =
            Ingest::new(&store, &clock, &self.site, &self.bell, Registry::default(), lanes);
        let stop = CancellationToken::new();
        tokio::spawn(writers.run(stop.clone()));
        (ingest, stop.drop_guard())
    }

    /// Starts another process: its use cases, with their own group commit.
    pub fn another_process(&self) -> (Services, DropGuard) {
        let (ingest, stop) = self.another_ingest();
        let store = self.store();
        let (traces, trace_writer) = Traces::new(&store);
        tokio::spawn(trace_writer.run(ingest.health().clone(), CancellationToken::new()));
        let services = Services::new(
            store,
            Arc::new(self.clock.clone()),
            self.site.clone(),
            ingest,
            traces,
            Arc::clone(&self.bell),
            Selfwatch::default(),
        )
        .with_keyring(keyring());
        (services, stop)
    }

    pub fn store(&self) -> Store {
        Store::from_pool(self.pool.clone())
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }

    pub async fn sweep(&self) -> Swept {
        self.evaluator.sweep_once().await.unwrap()
    }

    /// Moves the clock, and sweeps.
    pub async fn sweep_after(&self, seconds: i64) -> Swept {
        self.advance(seconds);
        self.sweep().await
    }

    /// A monitor with an interval of a minute and 30 s of grace.
    pub async fn monitor(&self, name: &str) -> Monitor {
        self.monitor_with(name, Change::default()).await
    }

    pub async fn monitor_with(&self, name: &str, change: Change) -> Monitor {
        let change = Change {
            name: Some(name.to_owned()),
            schedule: change
                .schedule
                .or_else(|| Some(json!({"kind": "interval", "seconds": 60}))),
            grace_seconds: change.grace_seconds.or(Some(30.0)),
            ..change
        };
        monitor::create(&self.services, &self.access, &change)
            .await
            .unwrap()
    }

    /// A monitor that alerts only these channels.
    pub async fn monitor_with_channels(&self, name: &str, channels: Vec<ChannelId>) -> Monitor {
        let channels = Some(ChannelChoice::These(channels));
        self.monitor_with(
            name,
            Change {
                channels,
                ..Change::default()
            },
        )
        .await
    }

    pub async fn channel(&self, name: &str) -> ChannelId {
        let settings = json!({"url": format!("https://{name}.test/")});
        channel::create(&self.services, &self.access, "webhook", name, &settings)
            .await
            .unwrap()
            .channel
            .id
    }

    pub fn signal(&self, kind: PingKind) -> Signal {
        let now = self.now();
        Signal {
            kind,
            received_at: now,
            occurred_at: now,
            run_id: None,
            exit_code: None,
            duration: None,
            source: Source::Http,
            detail: SignalDetail::default(),
            is_replayed: false,
        }
    }

    pub async fn ping(&self, monitor: &Monitor, kind: PingKind) {
        self.signal_to(monitor, self.signal(kind)).await;
    }

    pub async fn ping_of(&self, monitor: &Monitor, run: u128, kind: PingKind) {
        self.signal_to(
            monitor,
            Signal {
                run_id: Some(Uuid::from_u128(run)),
                ..self.signal(kind)
            },
        )
        .await;
    }

    pub async fn signal_to(&self, monitor: &Monitor, signal: Signal) {
        let accepted = self
            .services
            .ingest()
            .accept(incoming(Address::Ping(monitor.ping_id), signal))
            .await;
        assert_eq!(accepted, Ok(Accepted::Recorded));
    }

    pub async fn accept(&self, address: Address, kind: PingKind) -> Result<Accepted, IngestError> {
        self.services
            .ingest()
            .accept(incoming(address, self.signal(kind)))
            .await
    }

    /// Sends events as the SDK does, with a correct clock.
    pub async fn events(&self, events: Vec<Value>) -> Vec<Verdict> {
        let batch = json!({"sent_at": self.now(), "events": events});
        self.batch(batch).await.unwrap()
    }

    pub async fn batch(&self, batch: Value) -> Result<Vec<Verdict>, ServiceError> {
        self.batch_to(&self.services, batch).await
    }

    /// Sends a batch to this process.
    pub async fn batch_to(&self, services: &Services, batch: Value) -> Result<Vec<Verdict>, ServiceError> {
        let batch: EventBatch = serde_json::from_value(batch).unwrap();
        let verdicts = event::accept(services, &self.access, batch, self.now(), None).await?;
        Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
    }

    pub async fn event(&self, event: Value) {
        let verdicts = self.events(vec![event]).await;
        assert!(
            matches!(
                verdicts[..],
                [Verdict::Accepted | Verdict::Received { .. } | Verdict::Ticked { .. }]
            ),
            "{verdicts:?}"
        );
    }

    /// An event of this type that happens now.
    pub fn an_event(&self, kind: &str, mut rest: Value) -> Value {
        let members = rest.as_object_mut().unwrap();
        members.insert("id".to_owned(), json!(Uuid::new_v4()));
        members.insert("at".to_owned(), json!(self.now()));
        members.insert("type".to_owned(), json!(kind));
        rest
    }

    /// Beat sends a heartbeat, with a period of 10 s and 20 s of grace.
    pub async fn alive(&self) {
        let alive = json!({"beat": "shop", "period_seconds": 10.0, "grace_seconds": 20.0, "host": "h1"});
        self.event(self.an_event("beat_alive", alive)).await;
    }

    /// Beat reports its whole schedule: entries of a minute with 5 s of grace.
    pub async fn schedule(&self, entries: &[&str]) {
        let entries: Vec<Value> = entries.iter().map(|name| entry(name)).collect();
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": entries})))
            .await;
    }

    pub async fn finished(&self, entry: &str, outcome: &str) {
        let run = json!({"beat": "shop", "entry": entry, "run_id": Uuid::new_v4(), "outcome": outcome});
        self.event(self.an_event("run_finished", run)).await;
    }

    pub async fn entry(&self, name: &str) -> Monitor {
        let id: Uuid = sqlx::query_scalar("SELECT id FROM monitor WHERE project_id = $1 AND entry = $2")
            .bind(self.project.0)
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        self.read(MonitorId(id)).await
    }

    pub async fn read(&self, id: MonitorId) -> Monitor {
        deadbeat_store::monitor::get(&self.services.reader(), self.project, id)
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn status(&self, monitor: &Monitor) -> Status {
        self.read(monitor.id).await.state.status
    }

    /// Returns all incidents, oldest first.
    pub async fn incidents(&self) -> Vec<Alerted> {
        let rows: Vec<(Uuid, String, bool)> =
            sqlx::query_as("SELECT subject_id, cause, resolved_at IS NULL FROM incident ORDER BY id")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        rows.into_iter()
            .map(|(subject, cause, open)| Alerted { subject, cause, open })
            .collect()
    }

    /// Returns all deliveries as (alert, channel), oldest first.
    pub async fn deliveries(&self) -> Vec<(String, ChannelId)> {
        let rows: Vec<(String, Uuid)> = sqlx::query_as("SELECT alert, channel_id FROM delivery ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.into_iter()
            .map(|(alert, channel)| (alert, ChannelId(channel)))
            .collect()
    }

    /// Returns the alerts in the outbox of all channels, oldest first.
    pub async fn alerts(&self) -> Vec<String> {
        self.deliveries()
            .await
            .into_iter()
            .map(|(alert, _)| alert)
            .collect()
    }

    pub async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.pool).await.unwrap()
    }
}

/// An entry of a minute with 5 s of grace.
pub fn entry(name: &str) -> Value {
    json!({"name": name, "task": "tasks.run", "schedule": {"kind": "interval", "seconds": 60}, "grace_seconds": 5.0})
}

pub fn incoming(address: Address, signal: Signal) -> Incoming {
    Incoming {
        address,
        signal,
        method: None,
        remote_addr: None,
        user_agent: None,
        body: Vec::new(),
    }
}

pub fn alerted(subject: impl Into<Uuid>, cause: &str, open: bool) -> Alerted {
    Alerted {
        subject: subject.into(),
        cause: cause.to_owned(),
        open,
    }
}
