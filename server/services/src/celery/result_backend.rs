//! The result backend of an application, according to the processes that call it. An incident opens when the backend has not answered for a while,
//! and ends when it answers.
//!
//! Only the reports and the incident are stored. A report of a fault may open the incident. A report of the end of a fault may end the incident, if
//! no other process has a fault. All open incidents are also checked once a minute, because a process may end or restart during its fault.

pub mod report;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::condition::UNSAMPLED_FOR;
use deadbeat_domain::celery::result_backend::{BackendView, BrokerState, is_alerted};
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::result_backend::{Open, Process};
use deadbeat_store::{Store, StoreError, StoreResult, Tx, with_sources};

use self::report::{Backend, Report, worst};
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::{Site, incident};

/// For how long an outage is remembered. Runs that the outage interrupted are judged within seconds of its end.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);

fn read(processes: Vec<Process>) -> Vec<(Process, Report)> {
    processes
        .into_iter()
        .filter_map(|process| {
            let report = Report::read(&process.report)?;
            Some((process, report))
        })
        .collect()
}

fn state_of_broker(broker: &Broker) -> BrokerState {
    if broker.state.trouble.is_some() {
        BrokerState::Troubled
    } else {
        BrokerState::Well(broker.sampled_at)
    }
}

/// Handles a report of a process of the application. The caller also says whether the process had a fault before. Returns true if an incident opened
/// or ended.
pub(crate) async fn on_report(
    tx: &mut Tx,
    site: &Site,
    broker: Option<&Broker>,
    was_troubled: bool,
    report: Option<&Report>,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    let trouble = report.and_then(Report::trouble);
    if !was_troubled && trouble.is_none() {
        return Ok(false);
    }
    // The broker has a row as soon as a process of its application was asked to sample it.
    let Some(broker) = broker else {
        return Ok(false);
    };
    let open = deadbeat_store::celery::result_backend::open_about(tx, broker.project_id, broker.id).await?;
    match (trouble, open) {
        (Some(trouble), None) if is_alerted(&trouble, state_of_broker(broker), now) => {
            let processes = read(
                deadbeat_store::celery::result_backend::reports(tx, broker.project_id, &broker.app, now)
                    .await?,
            );
            let (troubled, others): (Vec<_>, Vec<_>) = processes
                .into_iter()
                .map(|(process, report)| (process.name, report))
                .partition(|(_, report)| report.trouble().is_some());
            let since = worst(&troubled).map_or(trouble.since, |worst| worst.since);
            let answered = others
                .into_iter()
                .filter_map(|(name, report)| Some((name, report.answered_at?)))
                .filter(|(_, at)| *at > since)
                .max_by_key(|(_, at)| *at);
            let backend = Backend {
                id: broker.id,
                project_id: broker.project_id,
                address: report.map_or_else(String::new, |report| report.address.to_string()),
                troubled,
                answered,
            };
            let down = Transition {
                from: Status::Up,
                to: Status::Down,
                trigger: Trigger::Trouble(Cause::ResultBackendDown),
                at: now,
            };
            record(tx, site, &backend, down).await?;
            Ok(true)
        }
        (None, Some(open)) => settle(tx, site, &open, now).await,
        _ => Ok(false),
    }
}

/// Ends an open incident if no process has a fault any more, and one got an answer since then. Returns true if it ended.
async fn settle(tx: &mut Tx, site: &Site, open: &Open, now: DateTime<Utc>) -> StoreResult<bool> {
    let processes = match &open.app {
        Some(app) => {
            read(deadbeat_store::celery::result_backend::reports(tx, open.project_id, app, now).await?)
        }
        None => Vec::new(),
    };
    if processes.iter().any(|(_, report)| report.trouble().is_some()) {
        return Ok(false);
    }
    let is_answered = processes
        .iter()
        .any(|(_, report)| report.answered_at.is_some_and(|at| at > open.opened_at));
    // No process uses the backend any more, so its state is unknown.
    if !is_answered && open.app.is_some() && now - open.opened_at < UNSAMPLED_FOR {
        return Ok(false);
    }
    let backend = Backend {
        id: open.id,
        project_id: open.project_id,
        address: open.address.clone(),
        troubled: Vec::new(),
        answered: None,
    };
    let up = Transition {
        from: Status::Down,
        to: Status::Up,
        trigger: if is_answered {
            Trigger::Report
        } else {
            Trigger::GiveUp
        },
        at: now,
    };
    let subject = (open.project_id, SubjectKind::ResultBackend, open.id.0);
    incident::rearm_members(tx, site, &[subject], now).await?;
    record(tx, site, &backend, up).await?;
    Ok(true)
}

async fn record(tx: &mut Tx, site: &Site, backend: &Backend, transition: Transition) -> StoreResult<()> {
    let occurrences = Occurrence {
        changed: Changed::ResultBackend(backend),
        what: OccurrenceKind::Transition(transition),
    };
    incident::record(tx, site, &[occurrences]).await
}

/// Checks the open incidents of all projects, each project in its own transaction. Returns how many ended. An error in one project does not affect
/// the others.
///
/// # Errors
/// If the database cannot be reached.
pub(crate) async fn settle_all(
    store: &Store,
    site: &Site,
    now: DateTime<Utc>,
    batch: i64,
) -> StoreResult<usize> {
    let mut over = 0;
    let mut after = None;
    loop {
        let reader = store.reader();
        let projects = deadbeat_store::celery::result_backend::projects_after(&reader, after, batch).await?;
        for project in &projects {
            match settle_of(store, site, *project, now).await {
                Ok(ended) => over += ended,
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(project.id = %project, error = %with_sources(&error), "the incidents about the result backends of a project could not be settled");
                }
            }
        }
        after = projects.last().copied();
        if (projects.len() as i64) < batch {
            return Ok(over);
        }
    }
}

/// Checks the open incidents of one project. Returns how many ended.
async fn settle_of(store: &Store, site: &Site, project: ProjectId, now: DateTime<Utc>) -> StoreResult<usize> {
    let mut tx = store.begin().await?;
    let mut over = 0;
    for open in deadbeat_store::celery::result_backend::open_of(&mut tx, project).await? {
        over += usize::from(settle(&mut tx, site, &open, now).await?);
    }
    tx.commit().await?;
    Ok(over)
}

/// Returns the backend in the form of the rules, for monitors of the application. Returns `None` if no process has a fault with it.
pub(crate) async fn view(
    tx: &mut Tx,
    broker: Option<&Broker>,
    now: DateTime<Utc>,
) -> StoreResult<Option<BackendView>> {
    let Some(broker) = broker else {
        return Ok(None);
    };
    let processes =
        read(deadbeat_store::celery::result_backend::reports(tx, broker.project_id, &broker.app, now).await?);
    let troubled: Vec<&(Process, Report)> = processes
        .iter()
        .filter(|(_, report)| report.trouble().is_some())
        .collect();
    let Some(since) = troubled
        .iter()
        .filter_map(|(_, report)| Some(report.trouble()?.since))
        .min()
    else {
        return Ok(None);
    };
    let is_alerted = deadbeat_store::celery::result_backend::open_about(tx, broker.project_id, broker.id)
        .await?
        .is_some();
    Ok(Some(BackendView {
        id: broker.id,
        since,
        is_alerted,
        holds_up_beat: troubled.iter().any(|(process, _)| process.worker.is_none()),
        holds_up: troubled
            .iter()
            .filter(|(_, report)| report.hangs())
            .filter_map(|(process, _)| process.worker)
            .collect(),
        troubled: troubled
            .iter()
            .filter_map(|(process, _)| process.worker)
            .collect(),
    }))
}

/// Returns when the last incident about the backend opened, and when it ended unless it is open. Runs that this outage interrupted are not judged
/// again.
pub(crate) async fn last_outage(
    tx: &mut Tx,
    broker: Option<&Broker>,
    now: DateTime<Utc>,
) -> StoreResult<Option<(DateTime<Utc>, Option<DateTime<Utc>>)>> {
    match broker {
        Some(broker) => {
            deadbeat_store::celery::result_backend::last_outage(
                tx,
                broker.project_id,
                broker.id,
                now - REMEMBERED,
            )
            .await
        }
        None => Ok(None),
    }
}
