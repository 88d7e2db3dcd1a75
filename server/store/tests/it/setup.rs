//! Rows that the tests start with.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::message::{CauseOfIncident, Event, IncidentEvent, Message, Phase};
use deadbeat_domain::alert::recipients::Recipient;
use deadbeat_domain::alert::routing::Routing;
use deadbeat_domain::ids::{ChannelId, DeliveryId, IncidentId, MonitorId, PingId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_domain::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use deadbeat_domain::monitor::transition::on_ping;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use deadbeat_domain::schedule::Schedule;
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::alert::delivery::NewAlert;
use deadbeat_store::incident::Incident;
use deadbeat_store::monitor::batch::{self, Batch};
use deadbeat_store::monitor::ping::NewPing;
use deadbeat_store::monitor::{Monitor, SignalledMonitor, Stateful};
use deadbeat_store::people::project::Project;
use deadbeat_store::{Store, Tx};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

/// A database with one project in it.
pub struct World {
    pub pool: PgPool,
    pub store: Store,
    pub project: ProjectId,
}

/// The time that many seconds after a Thursday noon.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_768_478_400 + seconds, 0).unwrap()
}

impl World {
    pub async fn new(pool: PgPool) -> Self {
        let store = Store::from_pool(pool.clone());
        let project = insert_project(&store).await;
        Self { pool, store, project }
    }

    pub async fn begin(&self) -> Tx {
        self.store.begin().await.unwrap()
    }

    /// A monitor with an interval of a minute and 30 s of grace. It is up, due at 60, and down at 90.
    pub async fn monitor(&self, slug: &str) -> Monitor {
        let expectation = Expectation {
            schedule: Schedule::interval(60.0).unwrap(),
            delay_seconds: 0.0,
            grace_seconds: 30.0,
            longest_run_seconds: None,
        };
        let mut state = MonitorState::fresh(expectation, false, at(0));
        let _ = on_ping(&mut state, &signal(PingKind::Success, 0));
        state.ping_count = 0;
        let monitor = Monitor {
            id: MonitorId::generate(),
            project_id: self.project,
            ping_id: PingId::generate(),
            slug: slug.to_owned(),
            name: slug.to_owned(),
            tags: Vec::new(),
            all_channels: true,
            severity: None,
            beat_id: None,
            entry: None,
            registered: None,
            retired_at: None,
            created_at: at(0),
            updated_at: at(0),
            open_runs: 0,
            state,
        };
        let mut tx = self.begin().await;
        deadbeat_store::monitor::insert(&mut tx, &[&monitor])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        monitor
    }

    /// Receives a ping as the group commit does.
    pub async fn ping(&self, monitor: &Monitor, kind: PingKind, seconds: i64) {
        let mut tx = self.begin().await;
        let rows = deadbeat_store::monitor::lock_for_signals(
            &mut tx,
            &[monitor.ping_id.0],
            &[],
            deadbeat_store::monitor::Held::Wait,
        )
        .await
        .unwrap();
        let mut monitors: Vec<SignalledMonitor> = rows.into_iter().map(Result::unwrap).collect();
        deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &[])
            .await
            .unwrap();
        let _ = on_ping(&mut monitors[0].state, &signal(kind, seconds));
        let pings = vec![new_ping(&monitors[0], kind, seconds)];
        let runs = monitors[0]
            .state
            .runs
            .iter()
            .map(|run| (monitor.key(), run.clone()))
            .collect();
        batch::write(
            &mut tx,
            &Batch {
                pings,
                runs,
                monitors: monitors.iter().map(Stateful::changed).collect(),
                moves_check: false,
                writer: None,
            },
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn channel(&self, name: &str) -> ChannelId {
        let channel = Channel {
            id: ChannelId::generate(),
            project_id: self.project,
            name: name.to_owned(),
            settings: Settings::of_row("email".to_owned(), json!({"to": "ops@example.org"})).unwrap(),
            signing_secret: None,
            sealed: None,
            routing: Routing::default(),
            disabled: None,
            confirmed_at: Some(at(0)),
            confirm_secret: None,
            created_at: at(0),
            updated_at: at(0),
        };
        let mut tx = self.begin().await;
        deadbeat_store::alert::channel::insert(&mut tx, &channel)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        channel.id
    }

    /// An open incident about a monitor.
    pub async fn incident(&self, monitor: &Monitor) -> Incident {
        let incident = self.an_incident(SubjectKind::Monitor, monitor.id.0);
        let mut tx = self.begin().await;
        let opened = deadbeat_store::incident::open(&mut tx, std::slice::from_ref(&incident)).await;
        assert_eq!(opened.unwrap(), [incident.id]);
        tx.commit().await.unwrap();
        incident
    }

    pub fn an_incident(&self, kind: SubjectKind, subject: Uuid) -> Incident {
        Incident {
            id: IncidentId::generate(),
            project_id: self.project,
            subject: Subject {
                kind,
                id: subject,
                name: "backup".to_owned(),
            },
            cause: Cause::Missed,
            severity: Cause::Missed.severity(),
            summary: "It did not report.".to_owned(),
            evidence: Vec::new(),
            repair: Vec::new(),
            opened_at: at(90),
            resolved_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            remind_at: Some(at(3_690)),
            is_inferred: false,
            is_flapping: false,
        }
    }

    pub async fn enqueue(
        &self,
        incident: Option<IncidentId>,
        alert: Alert,
        channels: &[ChannelId],
    ) -> Vec<DeliveryId> {
        let mut tx = self.begin().await;
        let alert = new_alert(self.project, message(incident, alert), channels);
        let made = deadbeat_store::alert::delivery::enqueue(&mut tx, &[alert], at(90)).await;
        tx.commit().await.unwrap();
        made.unwrap()
    }

    pub async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.pool).await.unwrap()
    }
}

/// An alert that goes to these channels.
pub fn new_alert(project_id: ProjectId, message: Message, channels: &[ChannelId]) -> NewAlert {
    NewAlert {
        project_id,
        message,
        recipients: channels.iter().copied().map(Recipient::at_once).collect(),
    }
}

/// A message: the test of a channel, or a report about an incident.
pub fn message(incident: Option<IncidentId>, alert: Alert) -> Message {
    let event = |id| {
        Box::new(IncidentEvent {
            phase: Phase::ALL
                .into_iter()
                .find(|phase| phase.alert() == alert)
                .unwrap(),
            incident: deadbeat_domain::alert::message::Incident {
                id,
                project: deadbeat_domain::alert::message::Project {
                    id: ProjectId::generate(),
                    name: "A project".to_owned(),
                },
                subject: Subject {
                    kind: SubjectKind::Monitor,
                    id: id.0,
                    name: "backup".to_owned(),
                },
                cause: CauseOfIncident {
                    code: "MISSED".to_owned(),
                    summary: "It did not report.".to_owned(),
                    url: None,
                },
                severity: None,
                evidence: Vec::new(),
                repair: Vec::new(),
                members: Vec::new(),
                member_count: 0,
                flapping: false,
                opened_at: at(90),
                resolved_at: None,
                acknowledged_at: None,
                acknowledged_by: None,
                acknowledge_url: None,
                url: "https://deadbeat.test/".to_owned(),
            },
            monitor: None,
        })
    };
    Message {
        at: at(90),
        event: incident.map_or(Event::Test, |id| Event::Incident(event(id))),
    }
}

pub async fn insert_project(store: &Store) -> ProjectId {
    let project = Project {
        id: ProjectId::generate(),
        name: "A project".to_owned(),
        reminder_seconds: Some(3_600),
        created_at: at(0),
    };
    let mut tx = store.begin().await.unwrap();
    deadbeat_store::people::project::insert(&mut tx, &project)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    project.id
}

pub fn signal(kind: PingKind, seconds: i64) -> Signal {
    Signal {
        kind,
        received_at: at(seconds),
        occurred_at: at(seconds),
        run_id: None,
        exit_code: None,
        duration: None,
        source: Source::Http,
        detail: SignalDetail::default(),
        is_replayed: false,
    }
}

pub fn new_ping(monitor: &impl Stateful, kind: PingKind, seconds: i64) -> NewPing<'static> {
    let ((project_id, monitor_id), state) = monitor.changed();
    NewPing {
        project_id,
        monitor_id,
        n: state.ping_count,
        received_at: at(seconds),
        kind,
        run_id: None,
        exit_code: None,
        source: Source::Http,
        method: None,
        remote_addr: None,
        user_agent: None,
        body: &[],
    }
}
