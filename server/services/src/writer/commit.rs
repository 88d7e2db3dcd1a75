//! One batch becomes rows in one transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use deadbeat_domain::ids::{BeatId, MonitorId, RunKey};
use deadbeat_domain::limits;
use deadbeat_domain::ping::Signal;
use deadbeat_domain::text::Text;
use deadbeat_domain::transition::{forget_times_to_come, on_ping};
use deadbeat_store::batch::Batch;
use deadbeat_store::monitor::{Heard, Monitor, Stateful};
use deadbeat_store::ping::NewPing;
use deadbeat_store::run::LOADED_RUNS_OF_ID;
use deadbeat_store::{StoreError, StoreResult, Tx, with_sources};
use uuid::Uuid;

use super::Writer;
use crate::incident::{self, Changed, News, What};
use crate::ingest::{Accepted, Address, Incoming};
use crate::spool::Spool;

impl Writer {
    /// Writes a batch in one transaction. The answers are in the order of the signals.
    ///
    /// A signal has no answer (its client hears "try again") when it may be for a monitor whose row cannot be read.
    pub(super) async fn commit(
        &mut self,
        incoming: &[&Incoming],
        position: u64,
        limit: Option<Duration>,
    ) -> StoreResult<Vec<Option<Accepted>>> {
        let tx = match limit {
            Some(limit) => self.store.begin_within(limit).await?,
            None => self.store.begin().await?,
        };
        self.commit_in(tx, incoming, position).await
    }

    pub(super) async fn commit_in(
        &mut self,
        mut tx: Tx,
        incoming: &[&Incoming],
        position: u64,
    ) -> StoreResult<Vec<Option<Accepted>>> {
        let targets = self.resolve(&mut tx, incoming).await?;

        let mut ids: Vec<Uuid> = targets
            .iter()
            .filter_map(|target| target.monitor.map(|id| id.0))
            .collect();
        // One look-up by the primary key where the id behind the ping URL is known.
        let mut ping_ids: Vec<Uuid> = Vec::new();
        for one in incoming {
            if let Address::Ping(ping) = one.address {
                match self.registry.monitor_of(ping) {
                    Some(id) => ids.push(id.0),
                    None => ping_ids.push(ping.0),
                }
            }
        }
        let mut monitors: Vec<Heard> = Vec::new();
        let mut by_id = HashMap::new();
        let mut by_ping_id = HashMap::new();
        let mut any_unreadable = false;
        for row in deadbeat_store::monitor::lock_for_signals(&mut tx, &ping_ids, &ids).await? {
            match row {
                Ok(monitor) => {
                    by_id.insert(monitor.id, monitors.len());
                    by_ping_id.insert(monitor.ping_id, monitors.len());
                    monitors.push(monitor);
                }
                Err(unreadable) => {
                    any_unreadable = true;
                    tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "a monitor cannot be read");
                }
            }
        }
        self.registry
            .learn(monitors.iter().map(|monitor| (monitor.ping_id, monitor.id)));
        let places: Vec<Option<usize>> = incoming
            .iter()
            .zip(&targets)
            .map(|(one, target)| match &one.address {
                Address::Ping(id) => by_ping_id.get(id).copied(),
                Address::Slug { .. } => target.monitor.and_then(|id| by_id.get(&id)).copied(),
            })
            .collect();
        let mut named: Vec<(MonitorId, Uuid)> = incoming
            .iter()
            .zip(&places)
            .filter_map(|(one, place)| Some((monitors.get((*place)?)?.id, one.signal.run_id?)))
            .collect();
        named.sort_unstable();
        named.dedup();
        deadbeat_store::run::load_into(&mut tx, &mut monitors, &named).await?;
        let crowded = crowded(&monitors);

        let mut accepted = Vec::with_capacity(incoming.len());
        let writer = self.spool.as_ref().map(Spool::writer);
        let mut batch = Batch {
            writer: writer.map(|writer| (writer, position)),
            ..Batch::default()
        };
        // In the order of the signals: a failure that a success follows must not open its incident after that one has resolved it.
        let mut happened: Vec<(Heard, &Signal, What)> = Vec::new();
        let mut changed_runs: HashSet<RunKey> = HashSet::new();
        let now = self.clock.now();
        for monitor in &mut monitors {
            forget_times_to_come(&mut monitor.state, now);
        }
        for ((one, target), place) in incoming.iter().zip(&targets).zip(places) {
            let Some(place) = place else {
                if let (Address::Ping(id), false) = (&one.address, any_unreadable) {
                    self.registry.deny(*id);
                }
                accepted.push((!any_unreadable).then_some(Accepted::Unknown {
                    project: target.project,
                }));
                continue;
            };
            let monitor = &mut monitors[place];
            let effect = on_ping(&mut monitor.state, &one.signal);
            if effect.is_known {
                // It was written before, and the answer was lost.
                accepted.push(Some(Accepted::Recorded));
                continue;
            }
            batch.pings.push(new_ping(monitor, one));
            changed_runs.extend(effect.runs);
            if let Some(cause) = effect.failed_again {
                let failed = What::FailedAgain(cause, one.signal.received_at);
                happened.push((monitor.clone(), &one.signal, failed));
            }
            if let Some(transition) = effect.transition {
                happened.push((monitor.clone(), &one.signal, What::Transition(transition)));
            }
            accepted.push(Some(Accepted::Recorded));
        }
        if batch.pings.is_empty() {
            return Ok(accepted);
        }

        for monitor in &monitors {
            let changed = monitor
                .state
                .runs
                .iter()
                .filter(|run| changed_runs.contains(&run.key));
            batch.runs.extend(changed.map(|run| (monitor.id, run.clone())));
        }
        batch.monitors = monitors.iter().map(Stateful::changed).collect();
        deadbeat_store::batch::write(&mut tx, &batch).await?;
        if !crowded.is_empty() {
            deadbeat_store::run::prune(&mut tx, &crowded).await?;
        }
        let told = whole(&mut tx, &happened).await?;
        let fed: Vec<BeatId> = told.iter().filter_map(|monitor| monitor.beat_id).collect();
        let beats = if fed.is_empty() {
            Vec::new()
        } else {
            deadbeat_store::beat::by_ids(&mut tx, &fed).await?
        };
        let news: Vec<News<'_>> = told
            .iter()
            .zip(&happened)
            .map(|(monitor, (_, signal, what))| News {
                changed: Changed::Signalled(
                    monitor,
                    signal,
                    monitor
                        .beat_id
                        .and_then(|id| beats.iter().find(|beat| beat.id == id)),
                ),
                what: *what,
            })
            .collect();
        incident::record(&mut tx, &self.site, &news).await?;
        tx.commit().await?;
        if !news.is_empty() {
            self.outbox_bell.notify_one();
        }
        Ok(accepted)
    }
}

/// The run ids of which so many ended runs are loaded that there may be too many: a client sends one id again and again.
fn crowded(monitors: &[Heard]) -> Vec<(MonitorId, Uuid)> {
    let mut ended: HashMap<(MonitorId, Uuid), i64> = HashMap::new();
    for monitor in monitors {
        for run in monitor.state.runs.iter().filter(|run| !run.is_open()) {
            if let Some(run_id) = run.run_id {
                *ended.entry((monitor.id, run_id)).or_default() += 1;
            }
        }
    }
    ended.retain(|_, count| *count >= LOADED_RUNS_OF_ID);
    ended.into_keys().collect()
}

/// The monitors of what happened, each as it was then.
async fn whole(tx: &mut Tx, happened: &[(Heard, &Signal, What)]) -> StoreResult<Vec<Monitor>> {
    if happened.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = happened.iter().map(|(heard, _, _)| heard.id.0).collect();
    let stored = deadbeat_store::monitor::by_ids(tx, &ids).await?;
    let stored: HashMap<MonitorId, Monitor> =
        stored.into_iter().map(|monitor| (monitor.id, monitor)).collect();
    let then = |heard: &Heard| {
        stored.get(&heard.id).map(|monitor| Monitor {
            state: heard.state.clone(),
            ..monitor.clone()
        })
    };
    // Their rows are locked: none can be missing.
    happened
        .iter()
        .map(|(heard, _, _)| {
            then(heard)
                .ok_or_else(|| StoreError::Corrupt(format!("monitor {} went while it was locked", heard.id)))
        })
        .collect()
}

fn new_ping(monitor: &Heard, incoming: &Incoming) -> NewPing {
    let signal = &incoming.signal;
    NewPing {
        monitor_id: monitor.id,
        n: monitor.state.ping_count,
        received_at: signal.received_at,
        kind: signal.kind,
        run_id: signal.run_id,
        exit_code: signal.exit_code,
        source: signal.source,
        method: incoming.method.as_deref().map(clip),
        remote_addr: incoming.remote_addr.as_deref().map(clip),
        user_agent: incoming.user_agent.as_deref().map(clip),
        body: incoming.body.clone(),
    }
}

/// A header as it is kept.
fn clip(text: &str) -> String {
    Text::cleaned(text, limits::HEADER_CHARS).into()
}
