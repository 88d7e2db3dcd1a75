//! The outbox: alerts become delivery rows, in the transaction of what they tell.

use chrono::{DateTime, SecondsFormat, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::ids::{ChannelId, IncidentId, MonitorId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::status::ShownStatus;
use deadbeat_store::incident::Incident;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::{StoreResult, Tx};
use serde_json::{Value, json};

use crate::Site;

/// Puts an alert about an incident into the outbox. Returns how many deliveries that makes.
///
/// Whom: for a monitor its channels, for a Beat all of the project's; that it is over is told to those who were told that it began.
///
/// # Errors
/// When the database is away.
pub async fn tell(
    tx: &mut Tx,
    site: &Site,
    alert: Alert,
    incident: &Incident,
    monitor: Option<&Monitor>,
    now: DateTime<Utc>,
) -> StoreResult<usize> {
    let project = incident.project_id;
    let channels: Vec<ChannelId> = match (alert, incident.subject.kind) {
        (Alert::Resolved | Alert::Reminder, _) => {
            deadbeat_store::delivery::channels_told(tx, incident.id).await?
        }
        (_, SubjectKind::Monitor) => {
            deadbeat_store::channel::of_monitor(tx, project, MonitorId(incident.subject.id)).await?
        }
        (_, SubjectKind::Beat) => deadbeat_store::channel::of_project(tx, project).await?,
    };
    if channels.is_empty() {
        return Ok(0);
    }
    let (project_name, _) = deadbeat_store::project::for_alert(tx, project).await?;
    let payload = payload(site, alert, incident, monitor, &project_name, now);
    let made =
        deadbeat_store::delivery::enqueue(tx, project, Some(incident.id), alert, &payload, &channels, now)
            .await?;
    Ok(made.len())
}

/// What is told, as every attempt sends it.
fn payload(
    site: &Site,
    alert: Alert,
    incident: &Incident,
    monitor: Option<&Monitor>,
    project_name: &str,
    now: DateTime<Utc>,
) -> Value {
    json!({
        "type": alert.event_type(),
        "timestamp": instant(now),
        "incident": incident_json(site, incident, Some(project_name)),
        "monitor": monitor.map(|monitor| monitor_json(monitor, now)),
    })
}

/// An incident as alerts show it.
#[must_use]
pub fn incident_json(site: &Site, incident: &Incident, project_name: Option<&str>) -> Value {
    let IncidentId(id) = incident.id;
    json!({
        "id": id,
        "project": {"id": incident.project_id, "name": project_name},
        "subject": incident.subject,
        "cause": {"code": incident.cause.as_str(), "summary": incident.summary},
        "evidence": incident.evidence.iter()
            .map(|fact| json!({"at": fact.at.map(instant), "fact": fact.fact}))
            .collect::<Vec<_>>(),
        "repair": incident.repair,
        "opened_at": instant(incident.opened_at),
        "resolved_at": incident.resolved_at.map(instant),
        "acknowledged_at": incident.acknowledged_at.map(instant),
        "url": format!("{}/", site.url),
    })
}

fn monitor_json(monitor: &Monitor, now: DateTime<Utc>) -> Value {
    let state = &monitor.state;
    json!({
        "id": monitor.id,
        "name": monitor.name,
        "slug": monitor.slug,
        "tags": monitor.tags,
        "status": ShownStatus::at(state.status, state.next_due_at, state.deadline_at.is_some(), now),
        "schedule": state.expectation.schedule.to_json(),
        "schedule_summary": state.expectation.schedule.summary(),
        "grace_seconds": seconds(state.expectation.grace_seconds),
        "last_ping_at": state.last_ping_at.map(instant),
        "next_due_at": state.next_due_at.map(instant),
    })
}

/// An instant as JSON shows it: RFC 3339, UTC, with `Z`.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Seconds as JSON shows them: whole where they are whole.
#[must_use]
pub fn seconds(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
