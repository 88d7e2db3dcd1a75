//! The result backend of an application, as those who call it say: told when it has not answered for a while, over when it answers.
//!
//! Nothing is stored of it but what the processes say, and its incident. Whoever reports trouble looks whether it is to be told; whoever
//! reports the end of its trouble looks whether it was the last one. Once a minute all open incidents are looked at: a process may end, or start
//! anew, in the middle of its trouble.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::condition::UNSEEN_FOR;
use deadbeat_domain::celery::result_backend::{BackendView, BrokerSeen, Trouble, is_told};
use deadbeat_domain::ids::{BrokerId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::{Transition, Trigger};
use deadbeat_domain::text::Text;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::result_backend::{Open, Process};
use deadbeat_store::{StoreResult, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Site;
use crate::incident::{self, Changed, News, What};

/// An outage is remembered for so long: what broke off in it is judged within seconds of its end.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);

/// What a process says of its calls into the result backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it is, without user and password.
    pub address: Text,
    /// When it last answered; None: never, as far as this process knows.
    #[serde(default)]
    pub answered_at: Option<DateTime<Utc>>,
    /// The method of Celery's backend that waits or fails; None: no trouble.
    #[serde(default)]
    pub operation: Option<Text>,
    /// Since when nothing is answered.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// When that was last seen.
    #[serde(default)]
    pub last_at: Option<DateTime<Utc>>,
    /// Processes that wait in a call.
    #[serde(default)]
    pub hanging: i64,
    /// Processes of which the last call failed.
    #[serde(default)]
    pub failing: i64,
    /// The class of the last failure, and what Redis said.
    #[serde(default)]
    pub error: Option<Text>,
}

impl Report {
    /// By our clock, which is ahead of the process's by `skew`; nothing lies in times to come.
    pub(crate) fn on_our_clock(self, skew: TimeDelta, now: DateTime<Utc>) -> Self {
        let ours =
            |at: Option<DateTime<Utc>>| at.map(|at| at.checked_add_signed(skew).unwrap_or(now).min(now));
        Self {
            answered_at: ours(self.answered_at),
            since: ours(self.since),
            last_at: ours(self.last_at),
            ..self
        }
    }

    /// As stored; None: it says nothing, or what an older version cannot read.
    pub(crate) fn read(stored: &Value) -> Option<Self> {
        serde_json::from_value(stored.clone()).ok()
    }

    /// What is wrong.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.operation.as_ref()?;
        let since = self.since?;
        Some(Trouble {
            since,
            last_at: self.last_at.unwrap_or(since),
        })
    }

    /// Some of its processes wait.
    pub(crate) fn hangs(&self) -> bool {
        self.trouble().is_some() && self.hanging > 0
    }
}

/// Whether a worker waits for its result backend, by its snapshot.
pub(crate) fn hangs(snapshot: &Value) -> bool {
    let report = snapshot.get("result_backend").and_then(Report::read);
    report.is_some_and(|report| report.hangs())
}

/// Whether what was stored of a process says that it is in trouble.
pub(crate) fn is_troubled(stored: Option<&Value>) -> bool {
    stored
        .and_then(|report| report.get("operation"))
        .is_some_and(Value::is_string)
}

/// A result backend in trouble, and who says so.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The broker of the same application.
    pub id: BrokerId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Where it is.
    pub address: String,
    /// The processes that are in trouble, by name.
    pub troubled: Vec<(String, Report)>,
    /// Another process that was answered since the trouble began, and when.
    pub answered: Option<(String, DateTime<Utc>)>,
}

/// The trouble of all of them together.
fn worst(troubled: &[(String, Report)]) -> Option<Trouble> {
    troubled
        .iter()
        .filter_map(|(_, report)| report.trouble())
        .reduce(|one, other| Trouble {
            since: one.since.min(other.since),
            last_at: one.last_at.max(other.last_at),
        })
}

fn read(processes: Vec<Process>) -> Vec<(Process, Report)> {
    processes
        .into_iter()
        .filter_map(|process| {
            let report = Report::read(&process.report)?;
            Some((process, report))
        })
        .collect()
}

fn broker_seen(broker: &Broker) -> BrokerSeen {
    if broker.state.trouble.is_some() {
        BrokerSeen::Troubled
    } else {
        BrokerSeen::Well(broker.sampled_at)
    }
}

/// A process of the application has just reported, and was in trouble before or not. Answers whether anything is to be told.
pub(crate) async fn heard(
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
    // It has a row as soon as anybody of its application was asked to look at it.
    let Some(broker) = broker else {
        return Ok(false);
    };
    let open = deadbeat_store::celery::result_backend::open_about(tx, broker.project_id, broker.id).await?;
    match (trouble, open) {
        (Some(trouble), None) if is_told(&trouble, broker_seen(broker), now) => {
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

/// Ends an open incident when nobody is in trouble any more and somebody was answered since. Answers whether it did.
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
    // Nobody uses it any more: that it is down is known no longer.
    if !is_answered && open.app.is_some() && now - open.opened_at < UNSEEN_FOR {
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
    incident::rearm_members(tx, site, &[(SubjectKind::ResultBackend, open.id.0)], now).await?;
    record(tx, site, &backend, up).await?;
    Ok(true)
}

async fn record(tx: &mut Tx, site: &Site, backend: &Backend, transition: Transition) -> StoreResult<()> {
    let news = News {
        changed: Changed::ResultBackend(backend),
        what: What::Transition(transition),
    };
    incident::record(tx, site, &[news]).await
}

/// Looks at all open incidents; answers how many ended.
pub(crate) async fn settle_all(
    tx: &mut Tx,
    site: &Site,
    now: DateTime<Utc>,
    batch: i64,
) -> StoreResult<usize> {
    let mut over = 0;
    let mut after = None;
    loop {
        let open = deadbeat_store::celery::result_backend::open_after(tx, after, batch).await?;
        for one in &open {
            over += usize::from(settle(tx, site, one, now).await?);
        }
        after = open.last().map(|last| last.id);
        if (open.len() as i64) < batch {
            return Ok(over);
        }
    }
}

/// As the rules take it, when monitors of the application are judged; None: nobody is in trouble with it.
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
    let is_told = deadbeat_store::celery::result_backend::open_about(tx, broker.project_id, broker.id)
        .await?
        .is_some();
    Ok(Some(BackendView {
        id: broker.id,
        since,
        is_told,
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

/// When its last outage was told and when it ended, unless it is open: runs that were broken off in it are not judged again.
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

/// Since when the trouble of a backend lasts, for an explanation.
pub(crate) fn since(backend: &Backend) -> Option<DateTime<Utc>> {
    worst(&backend.troubled).map(|trouble| trouble.since)
}
