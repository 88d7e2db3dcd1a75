//! Runs whose message was lost while later runs of their entry came. The monitor stays up, because a later report satisfies its slot.
//!
//! Each such run ends as `lost` in its trace, which `/runs` and the API show. A monitor goes down for it only if its
//! entry demands every run.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::blame::SentRun;
use deadbeat_domain::celery::blame::view::StageView;
use deadbeat_domain::celery::trace::{TraceState, fold};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::silence::on_lost_run;
use deadbeat_store::celery::trace::Stored;
use deadbeat_store::celery::trace::stage::RunProgress;
use deadbeat_store::celery::trace::unbegun::Unbegun;
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{Store, StoreResult, Tx, with_sources};
use uuid::Uuid;

use crate::celery::gather::Surroundings;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::{Site, incident};

/// A run is checked this long after it was sent and reported, because the report of the worker that receives it may still arrive.
const PATIENCE: TimeDelta = TimeDelta::seconds(20);
/// A message that waits for longer is judged only by its queue and its slot.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::hours(1);
/// The most runs of one check.
const BATCH: i64 = 200;
const WHY: &str =
    "its message is lost: no worker received it, and it is not in its queue; later runs of its entry began";

/// Returns the record of a run that Beat sent and no worker has received, or `None` if there is nothing to record.
pub(crate) fn of(stored: &Stored) -> Option<Unbegun> {
    if stored.trace.state() != TraceState::Published {
        return None;
    }
    let published_at = stored.trace.published_at?;
    let wanted_at = published_at
        .max(stored.heard_first_at)
        .max(stored.trace.eta.unwrap_or(published_at));
    Some(Unbegun {
        project_id: stored.project_id,
        run_id: stored.run_id,
        monitor_id: stored.monitor_id?,
        published_at,
        check_after: wanted_at + PATIENCE,
    })
}

/// Checks runs whose messages wait for longer than usual. Returns how many are lost, and how many monitors went down for that reason. Any number of
/// processes may do so at once.
///
/// # Errors
/// If the database cannot be reached.
pub(crate) async fn judge_once(
    store: &Store,
    site: &Site,
    now: DateTime<Utc>,
) -> StoreResult<(usize, usize)> {
    let due = deadbeat_store::celery::trace::unbegun::due(&store.reader(), now, BATCH).await?;
    if due.is_empty() {
        return Ok((0, 0));
    }
    let mut tx = store.begin().await?;
    let found = judge(&mut tx, site, &due, now).await?;
    tx.commit().await?;
    Ok(found)
}

async fn judge(tx: &mut Tx, site: &Site, due: &[Unbegun], now: DateTime<Utc>) -> StoreResult<(usize, usize)> {
    let mut keys: Vec<(ProjectId, Uuid)> = due.iter().map(|one| (one.project_id, one.run_id)).collect();
    keys.sort_unstable();
    // Lock the traces first, as the writer of stages does.
    let stored = deadbeat_store::celery::trace::lock(tx, &keys).await?;
    let mut waiting: HashMap<(ProjectId, Uuid), Stored> = stored
        .into_iter()
        .filter(|one| one.trace.state() == TraceState::Published)
        .map(|one| ((one.project_id, one.run_id), one))
        .collect();
    let mut ids: Vec<(ProjectId, MonitorId)> =
        due.iter().map(|one| (one.project_id, one.monitor_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut monitors: HashMap<MonitorId, Monitor> = HashMap::new();
    for row in deadbeat_store::monitor::lock_free(tx, &ids).await? {
        match row {
            Ok(monitor) => drop(monitors.insert(monitor.id, monitor)),
            Err(unreadable) => {
                tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "the runs of a monitor cannot be judged");
            }
        }
    }
    let known = Surroundings::gather(tx, &monitors.values().collect::<Vec<_>>(), now).await?;
    let recent = recent(tx, &ids).await?;

    let mut over = Vec::new();
    let mut put_off = Vec::new();
    let mut lost = Vec::new();
    for note in due {
        let key = (note.project_id, note.run_id);
        let Some(run) = waiting.remove(&key) else {
            over.push(key);
            continue;
        };
        let is_lost = monitors.get(&note.monitor_id).is_some_and(|monitor| {
            let evidence = known.evidence(monitor);
            let runs = recent.get(&note.monitor_id).map_or(&[][..], Vec::as_slice);
            evidence.is_lost_before_it_began(&view(&run), runs, now)
        });
        let age = now - note.published_at;
        if is_lost {
            over.push(key);
            lost.push(run);
        } else if age > GIVEN_UP_AFTER {
            over.push(key);
        } else {
            // The longer a message waits, the less often it is checked.
            put_off.push(Unbegun {
                check_after: now + (age / 4).max(PATIENCE / 4),
                ..*note
            });
        }
    }
    deadbeat_store::celery::trace::unbegun::put_off(tx, &put_off).await?;
    deadbeat_store::celery::trace::unbegun::forget(tx, &over).await?;
    for run in &mut lost {
        let given_up = run.trace.given_up(Uuid::now_v7(), WHY);
        fold(&mut run.trace, &given_up);
    }
    lost.sort_by_key(|run| (run.project_id, run.run_id));
    deadbeat_store::celery::trace::update(tx, &lost.iter().collect::<Vec<_>>()).await?;
    let down = report_lost(tx, site, &lost, &mut monitors, &known, now).await?;
    Ok((lost.len(), down))
}

/// If an entry expects every run, its monitor goes down.
async fn report_lost(
    tx: &mut Tx,
    site: &Site,
    lost: &[Stored],
    monitors: &mut HashMap<MonitorId, Monitor>,
    known: &Surroundings,
    now: DateTime<Utc>,
) -> StoreResult<usize> {
    let mut down: Vec<(MonitorId, RunProgress, OccurrenceKind)> = Vec::new();
    for run in lost {
        let Some(monitor) = run.monitor_id.and_then(|id| monitors.get_mut(&id)) else {
            continue;
        };
        if wants_every_run(monitor)
            && let Some((transition, consequence)) = on_lost_run(&mut monitor.state, now)
        {
            let what = OccurrenceKind::Decided {
                transition,
                consequence,
                at: now,
            };
            down.push((monitor.id, stage(run, monitor.id), what));
        }
    }
    if down.is_empty() {
        return Ok(0);
    }
    let changed = down.iter().filter_map(|(id, ..)| monitors.get(id));
    let batch = Batch {
        monitors: changed.map(Stateful::changed).collect(),
        moves_check: true,
        ..Batch::default()
    };
    deadbeat_store::monitor::batch::write(tx, &batch).await?;
    for (id, stage, what) in &down {
        let Some(monitor) = monitors.get(id) else { continue };
        let background = crate::incident::changed::Background {
            stage: Some(stage),
            ..known.background(monitor)
        };
        let occurrences = Occurrence {
            changed: Changed::Monitor(monitor, &background),
            what: *what,
        };
        incident::record(tx, site, &[occurrences]).await?;
    }
    Ok(down.len())
}

fn wants_every_run(monitor: &Monitor) -> bool {
    let said = monitor
        .registered
        .as_ref()
        .and_then(|registered| registered.get("every_run"));
    said.and_then(serde_json::Value::as_bool) == Some(true) && monitor.state.status != Status::Paused
}

async fn recent(
    tx: &mut Tx,
    monitors: &[(ProjectId, MonitorId)],
) -> StoreResult<HashMap<MonitorId, Vec<SentRun>>> {
    let mut recent: HashMap<MonitorId, Vec<SentRun>> = HashMap::new();
    for run in deadbeat_store::celery::trace::unbegun::recent(tx, monitors).await? {
        recent.entry(run.monitor_id).or_default().push(SentRun {
            published_at: run.published_at,
            has_begun: run.has_begun,
        });
    }
    Ok(recent)
}

fn view(run: &Stored) -> StageView {
    StageView {
        published_at: run.trace.published_at,
        received_at: None,
        heard_at: run.trace.heard_at().unwrap_or(run.heard_first_at),
        queue: run.trace.queue().map(str::to_owned),
        worker: None,
        task: run.trace.task.clone(),
        is_expired: false,
    }
}

/// Returns the run in the form of an explanation.
fn stage(run: &Stored, monitor_id: MonitorId) -> RunProgress {
    RunProgress {
        monitor_id,
        run_id: run.run_id,
        task_id: run.trace.task_id.clone(),
        queue: run.trace.queue().map(str::to_owned),
        published_at: run.trace.published_at,
        received_at: None,
        started_at: None,
        finished_at: None,
        attempts: 0,
        worker: None,
        heard_at: run.trace.heard_at().unwrap_or(run.heard_first_at),
        is_expired: false,
    }
}
