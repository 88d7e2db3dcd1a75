//! Messages for tests of renderings. The outbox builds them from rows, so that no test renders a message that
//! Deadbeat never writes.

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::message::{self, DisabledChannel, Event, Message, Phase, Spell};
use deadbeat_domain::ids::{BeatId, ChannelId, IncidentId, MonitorId, PingId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair, Subject, SubjectKind};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::{Expectation, MonitorState};
use deadbeat_domain::schedule::Schedule;
use deadbeat_store::incident::Incident;
use deadbeat_store::incident::member::Affected;
use deadbeat_store::monitor::Monitor;
use serde_json::json;
use uuid::Uuid;

use super::{IncidentAlert, compose};
use crate::Site;

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0000 + number)
}

/// A monitor that did not report, and its incident.
pub(crate) struct Sample {
    pub(crate) incident: Incident,
    pub(crate) monitor: Option<Monitor>,
    pub(crate) project: String,
    pub(crate) affected: Option<Affected>,
}

impl Sample {
    pub(crate) fn monitor() -> Self {
        let schedule = json!({"kind": "cron", "expression": "0 2 * * *", "timezone": "Europe/Berlin"});
        let expectation = Expectation {
            schedule: Schedule::from_json(&schedule).unwrap(),
            delay_seconds: 0.0,
            grace_seconds: 900.0,
            longest_run_seconds: None,
        };
        let mut state = MonitorState::fresh(expectation, false, at("2026-01-01T00:00:00Z"));
        state.status = Status::Down;
        state.last_ping_at = Some(at("2026-01-01T02:00:07Z"));
        state.next_due_at = Some(at("2026-01-02T02:00:00Z"));
        let monitor = Monitor {
            id: MonitorId(id(2)),
            project_id: ProjectId(id(1)),
            ping_id: PingId(id(9)),
            slug: "nightly-report".to_owned(),
            name: "nightly-report".to_owned(),
            tags: vec!["prod".to_owned(), "reports".to_owned()],
            all_channels: true,
            severity: None,
            beat_id: None,
            entry: None,
            registered: None,
            retired_at: None,
            created_at: at("2026-01-01T00:00:00Z"),
            updated_at: at("2026-01-01T00:00:00Z"),
            open_runs: 0,
            state,
        };
        let incident = Incident {
            id: IncidentId(id(3)),
            project_id: ProjectId(id(1)),
            subject: Subject {
                kind: SubjectKind::Monitor,
                id: monitor.id.0,
                name: monitor.name.clone(),
            },
            cause: Cause::Missed,
            severity: Cause::Missed.severity(),
            summary: "nightly-report did not report: it was due at 02:00.".to_owned(),
            evidence: vec![
                Fact {
                    at: Some(at("2026-01-01T02:00:07Z")),
                    fact: "The last success was reported.".to_owned(),
                },
                Fact {
                    at: None,
                    fact: "It is expected every day at 02:00.".to_owned(),
                },
            ],
            repair: vec![
                Repair::command(
                    "See which queues have workers.",
                    Command::new("celery -A shop inspect active_queues"),
                ),
                Repair::advice("Read the worker's log."),
            ],
            opened_at: at("2026-01-02T02:15:00Z"),
            resolved_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            remind_at: None,
            is_inferred: false,
            is_flapping: false,
        };
        Self {
            incident,
            monitor: Some(monitor),
            project: "Shop".to_owned(),
            affected: None,
        }
    }

    /// Makes the sample of a silent Celery Beat, with 73 monitors that are members of its incident.
    pub(crate) fn storm() -> Self {
        let mut sample = Self::monitor();
        sample.monitor = None;
        sample.incident.cause = Cause::BeatDown;
        sample.incident.severity = Cause::BeatDown.severity();
        sample.incident.summary = "Celery Beat of shop is silent.".to_owned();
        sample.incident.subject = Subject {
            kind: SubjectKind::Beat,
            id: BeatId(id(4)).0,
            name: "shop".to_owned(),
        };
        let named = (0..deadbeat_domain::limits::ALERT_MEMBERS)
            .map(|number| (MonitorId(id(100 + number as u128)), format!("task-{number:02}")));
        sample.affected = Some(Affected {
            first: named.collect(),
            count: 73,
        });
        sample
    }

    /// Returns the message that the outbox writes for this phase at this time.
    pub(crate) fn message(&self, phase: Phase, then: &str) -> Message {
        let mut incident = self.incident.clone();
        match phase {
            Phase::Resolved => incident.resolved_at = Some(at(then)),
            Phase::Acknowledged => {
                incident.acknowledged_at = Some(at(then));
                incident.acknowledged_by = Some("ops@example.org".to_owned());
            }
            Phase::Opened | Phase::Reminder | Phase::Escalated | Phase::LongDown => {}
        }
        let site = Site {
            url: "https://deadbeat.example.org".to_owned(),
        };
        let incident_alert = IncidentAlert {
            phase,
            incident: &incident,
            // The outbox writes reminders without reading the monitor.
            monitor: self.monitor.as_ref().filter(|_| phase != Phase::Reminder),
            at: at(then),
            step: &[],
            affected: None,
        };
        compose(&site, &incident_alert, &self.project, self.affected.as_ref())
    }

    pub(crate) fn opened(&self) -> Message {
        self.message(Phase::Opened, "2026-01-02T02:15:00Z")
    }
}

pub(crate) fn project() -> message::Project {
    message::Project {
        id: ProjectId(id(1)),
        name: "Shop".to_owned(),
    }
}

pub(crate) fn test() -> Message {
    Message {
        at: at("2026-01-02T02:15:00Z"),
        event: Event::Test,
    }
}

pub(crate) fn disabled() -> Message {
    Message {
        event: Event::ChannelDisabled(message::ChannelDisabled {
            channel: DisabledChannel {
                id: ChannelId(id(5)),
                name: "pager".to_owned(),
                kind: "webhook".to_owned(),
            },
            reason: "answered 410".to_owned(),
            unsubscribed: false,
            project: project(),
        }),
        ..test()
    }
}

pub(crate) fn blind() -> Message {
    Message {
        event: Event::BlindSpell(message::BlindNotice {
            blind_spell: Spell {
                started_at: at("2026-01-01T02:15:00Z"),
                ended_at: at("2026-01-02T02:15:00Z"),
            },
            monitors: 3,
            summary: "Deadbeat was blind for a day.".to_owned(),
            project: project(),
        }),
        ..test()
    }
}

/// Returns one message of each kind that Deadbeat sends, and a storm.
pub(crate) fn all() -> Vec<Message> {
    let sample = Sample::monitor();
    Phase::ALL
        .into_iter()
        .map(|phase| sample.message(phase, "2026-01-02T02:20:00Z"))
        .chain([Sample::storm().opened(), test(), disabled(), blind()])
        .collect()
}
