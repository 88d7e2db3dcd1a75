//! Finds the owners of open runs, and workers that others have succeeded, for a sweep of workers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::worker::incarnation::{self, End, LEAST_GAP, is_silence_of_server};
use deadbeat_domain::celery::worker::orphan::{LISTED_WITHIN, UNLISTED_PATIENCE};
use deadbeat_domain::celery::worker::succession::{Other, Successors, is_succeeded, of_lost};
use deadbeat_domain::celery::worker::{on_broker_trouble, on_silence, on_succeeded};
use deadbeat_domain::change::Transition;
use deadbeat_domain::ids::{MonitorKey, ProjectId};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::run::orphan::Orphaned;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::span;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::{StoreResult, Tx};
use serde_json::Value;
use uuid::Uuid;

use crate::celery::worker::WorkerSnapshot;
use crate::celery::worker::failure::has_failed;

/// The incarnations whose open runs a sweep judges.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    ended: Vec<(ProjectId, Uuid, Orphaned)>,
    /// Incarnations that live and list the runs that they execute.
    listing: Vec<(ProjectId, Uuid)>,
    listed: Vec<Uuid>,
}

impl Owners {
    /// Finds out which incarnations of a worker have ended, and which runs the last reporting one executes.
    pub(crate) fn end_silent(&mut self, worker: &mut Worker, now: DateTime<Utc>, spells: &[BlindSpell]) {
        let project = worker.project_id;
        let ended = incarnation::end_silent(&mut worker.incarnations, now, spells);
        self.ended.extend(ended.into_iter().map(|(id, end)| {
            let how = match end {
                End::Unheard => Orphaned::Unheard,
                End::Stopped | End::Replaced | End::Silent => Orphaned::Ended,
            };
            (project, id, how)
        }));
        let Ok(snapshot) = serde_json::from_value::<WorkerSnapshot>(worker.snapshot.clone()) else {
            return;
        };
        let is_live = |id| {
            worker
                .incarnations
                .iter()
                .any(|one| one.id == id && one.is_live())
        };
        if let (Some(id), Some(listed)) = (snapshot.incarnation.filter(|id| is_live(*id)), snapshot.listed())
        {
            self.listing.push((project, id));
            self.listed.extend(listed);
        }
    }

    /// Returns the ids of all these incarnations.
    pub(crate) fn ids(&self) -> Vec<(ProjectId, Uuid)> {
        let ended = self.ended.iter().map(|(project, id, _)| (*project, *id));
        ended.chain(self.listing.iter().copied()).collect()
    }

    /// Marks the open runs whose owner has ended, or does not list them, for judgement. Marks only runs of the `held` monitors, which the caller has
    /// locked.
    pub(crate) async fn mark(&self, tx: &mut Tx, held: &[MonitorKey], now: DateTime<Utc>) -> StoreResult<()> {
        if held.is_empty() {
            return Ok(());
        }
        if !self.ended.is_empty() {
            deadbeat_store::celery::worker::orphan::mark_ended(tx, &self.ended, held, now).await?;
        }
        if !self.listing.is_empty() {
            let (before, judged_at) = (now - LISTED_WITHIN, now + UNLISTED_PATIENCE);
            deadbeat_store::celery::worker::orphan::mark_unlisted(
                tx,
                &self.listing,
                &self.listed,
                held,
                before,
                now,
                judged_at,
            )
            .await?;
        }
        Ok(())
    }
}

/// The workers of the sweep's applications that are up.
#[derive(Debug, Default)]
pub(crate) struct Colleagues {
    known: HashMap<(ProjectId, String), Vec<Worker>>,
}

impl Colleagues {
    /// Returns true if other workers do the work of this one.
    async fn succeed(&mut self, tx: &mut Tx, worker: &Worker, successors: Successors) -> StoreResult<bool> {
        let key = (worker.project_id, worker.app.clone());
        if !self.known.contains_key(&key) {
            let up = deadbeat_store::celery::worker::up_of_app(tx, worker.project_id, &worker.app).await?;
            self.known.insert(key.clone(), up);
        }
        let others: Vec<Other<'_>> = self
            .known
            .get(&key)
            .into_iter()
            .flatten()
            .filter(|other| other.id != worker.id)
            .map(|other| Other {
                status: other.state.status,
                queues: &other.queues,
                last_seen_at: other.state.last_seen_at,
                started_at: started_at(other),
            })
            .collect();
        Ok(is_succeeded(&worker.queues, successors, &others))
    }
}

/// Judges the silence of a worker. A worker whose sign-off may have been missed, or that ended by an error, is given up if others do its work. A lost
/// worker with an incident is given up if a new worker does its work.
pub(crate) async fn judge_silence(
    tx: &mut Tx,
    worker: &mut Worker,
    colleagues: &mut Colleagues,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> StoreResult<Option<Transition>> {
    if let Some(successors) = of_lost(&worker.state)
        && colleagues.succeed(tx, worker, successors).await?
    {
        return Ok(on_succeeded(&mut worker.state, now));
    }
    let before = worker.state.clone();
    let transition = on_silence(&mut worker.state, now, spells);
    let is_lost = transition.is_some_and(|transition| transition.to == Status::Down);
    if is_lost && has_failed(worker) {
        let broker = deadbeat_store::celery::broker::of_app(tx, worker.project_id, &worker.app).await?;
        if broker.is_some_and(|broker| broker.state.trouble.is_some()) {
            worker.state = before;
            on_broker_trouble(&mut worker.state, now);
            return Ok(None);
        }
    }
    if is_lost
        && let Some(successors) = successors(worker, spells)
        && colleagues.succeed(tx, worker, successors).await?
    {
        worker.state = before;
        return Ok(on_succeeded(&mut worker.state, now));
    }
    Ok(transition)
}

/// Returns which workers may have succeeded a silent one. Returns `None` if its silence is a fault, whichever other workers exist.
fn successors(worker: &Worker, spells: &[BlindSpell]) -> Option<Successors> {
    let seen = worker.state.last_seen_at?;
    if has_failed(worker) {
        return Some(Successors::StartedSince(seen));
    }
    let gap = (span(worker.state.period_seconds) * 2).max(LEAST_GAP);
    let reported = spells
        .iter()
        .filter(|spell| is_silence_of_server(seen, gap, &[**spell]))
        .map(|spell| spell.ended_at)
        .max();
    reported.map(Successors::ReportedSince)
}

fn started_at(worker: &Worker) -> DateTime<Utc> {
    let said = worker.snapshot.get("started_at").and_then(Value::as_str);
    said.and_then(|text| text.parse().ok())
        .unwrap_or(worker.created_at)
}
