//! Writes a batch in one transaction. First it locks the monitors, so that the caller can handle those that others have locked. Then it applies the
//! rules in memory, and writes everything.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{BeatId, MonitorId, MonitorKey, PingId, ProjectId, RunKey};
use deadbeat_domain::incident::Consequence;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::monitor::transition::{forget_times_to_come, on_ping};
use deadbeat_domain::text::Text;
use deadbeat_domain::time::Clock;
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::ping::NewPing;
use deadbeat_store::monitor::run::LOADED_RUNS_OF_ID;
use deadbeat_store::monitor::{Held, Monitor, SignalledMonitor, Stateful};
use deadbeat_store::{Store, StoreError, StoreResult, Tx, with_sources};
use foldhash::fast::RandomState;
use tokio::sync::Notify;
use uuid::Uuid;

use super::acceptance::Target;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};
use crate::monitor::signal::incoming::{Accepted, Address, Incoming};
use crate::monitor::signal::registry::Registry;
use crate::{Site, incident};

/// The number up to which a transaction writes a writer's signals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The writer's row in the table `writer`.
    pub(super) writer: Uuid,
    /// All its signals up to this number are written, or need not be.
    pub(super) number: u64,
    /// True if the signals were acknowledged before.
    pub(super) is_replay: bool,
}

/// The result for one signal of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The signal has an answer.
    Answered(Accepted),
    /// Another transaction has locked the row of its monitor.
    Locked,
    /// The row of its monitor cannot be read.
    Unreadable,
}

impl Fate {
    /// Returns true if the signal is part of the transaction. Otherwise it must be retried later.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Answered(_))
    }
}

/// A transaction that has locked the monitors of a batch, with the facts about each signal.
pub(super) struct Taken {
    tx: Tx,
    monitors: Vec<SignalledMonitor>,
    /// For each signal, the index of its monitor among the monitors, or its result without a monitor.
    places: Vec<Result<usize, Fate>>,
}

impl Taken {
    /// Returns for each signal, in order, whether it can be part of this transaction.
    pub(super) fn can_be_written(&self) -> impl Iterator<Item = bool> {
        self.places
            .iter()
            .map(|place| place.map_or_else(Fate::is_final, |_| true))
    }

    /// Returns the indexes of the signals whose monitors' rows cannot be read.
    pub(super) fn unreadable(&self) -> HashSet<usize> {
        let is_unreadable = |(_, place): &(usize, &Result<usize, Fate>)| **place == Err(Fate::Unreadable);
        let unreadable = self.places.iter().enumerate().filter(is_unreadable);
        unreadable.map(|(index, _)| index).collect()
    }

    /// Removes the signals for which `stays` is false.
    pub(super) fn retain(&mut self, stays: &[bool]) {
        let mut stays = stays.iter();
        self.places.retain(|_| stays.next().copied().unwrap_or(true));
    }
}

/// Writes batches of signals, each in one transaction.
pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) site: Site,
    pub(super) outbox_bell: Arc<Notify>,
    pub(super) registry: Registry,
    /// When the last use of each ping key was last written. Once a minute is enough.
    pub(super) touched: HashMap<Vec<u8>, DateTime<Utc>>,
    /// Keys and slugs that the database has resolved, for when it cannot be reached.
    pub(super) slugs: HashSet<(Vec<u8>, String)>,
}

impl Committer {
    /// Returns another committer for the same store, with empty caches.
    pub(super) fn another(&self) -> Self {
        Self {
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            site: self.site.clone(),
            outbox_bell: Arc::clone(&self.outbox_bell),
            registry: self.registry.clone(),
            touched: HashMap::new(),
            slugs: HashSet::new(),
        }
    }

    /// Locks the monitors to which the signals belong. The caller may have begun the transaction with its own statements.
    pub(super) async fn take(
        &mut self,
        mut tx: Tx,
        incoming: &[&Incoming],
        held: Held,
    ) -> StoreResult<Taken> {
        let targets = self.resolve(&mut tx, incoming).await?;
        let mut ids: Vec<Uuid> = targets
            .iter()
            .filter_map(|target| target.monitor.map(|id| id.0))
            .collect();
        // If the registry knows the monitor of a ping URL, one look-up by primary key is enough.
        let mut ping_ids: Vec<Uuid> = Vec::new();
        for one in incoming {
            if let Address::Ping(ping) = one.address {
                match self.registry.monitor_of(ping) {
                    Some(id) => ids.push(id.0),
                    None => ping_ids.push(ping.0),
                }
            }
        }
        let mut monitors: Vec<SignalledMonitor> = Vec::new();
        let mut by_id: HashMap<MonitorId, usize, RandomState> = HashMap::default();
        let mut by_ping_id: HashMap<PingId, usize, RandomState> = HashMap::default();
        let mut unreadable: HashSet<MonitorId> = HashSet::new();
        for row in deadbeat_store::monitor::lock_for_signals(&mut tx, &ping_ids, &ids, held).await? {
            match row {
                Ok(monitor) => {
                    by_id.insert(monitor.id, monitors.len());
                    by_ping_id.insert(monitor.ping_id, monitors.len());
                    monitors.push(monitor);
                }
                Err(row) => {
                    tracing::error!(monitor.id = %row.id, error = %with_sources(&row.error), "a monitor cannot be read");
                    unreadable.insert(row.id);
                }
            }
        }
        self.registry
            .learn(monitors.iter().map(|monitor| (monitor.ping_id, monitor.id)));

        let found: Vec<Option<usize>> = incoming
            .iter()
            .zip(&targets)
            .map(|(one, target)| match &one.address {
                Address::Ping(id) => by_ping_id.get(id).copied(),
                Address::Slug { .. } => target.monitor.and_then(|id| by_id.get(&id)).copied(),
            })
            .collect();
        let missing = self.missing(&mut tx, incoming, &targets, &found).await?;
        let mut places = Vec::with_capacity(incoming.len());
        for ((one, target), place) in incoming.iter().zip(&targets).zip(found) {
            if let Some(fault) = target.fault {
                places.push(Err(Fate::Answered(Accepted::Refused(fault))));
                continue;
            }
            let existing = match &one.address {
                Address::Ping(id) => missing.iter().find(|(_, ping)| ping == id),
                Address::Slug { .. } => missing.iter().find(|(id, _)| Some(*id) == target.monitor),
            };
            places.push(match (place, existing) {
                (Some(place), _) => Ok(place),
                (None, Some((id, _))) if unreadable.contains(id) => Err(Fate::Unreadable),
                (None, Some(_)) => Err(Fate::Locked),
                (None, None) => {
                    if let Address::Ping(id) = &one.address {
                        self.registry.deny(*id);
                    }
                    Err(Fate::Answered(Accepted::Unknown {
                        access: target.access,
                    }))
                }
            });
        }
        Ok(Taken { tx, monitors, places })
    }

    /// Returns which of the requested monitors exist although their rows were not returned.
    async fn missing(
        &self,
        tx: &mut Tx,
        incoming: &[&Incoming],
        targets: &[Target],
        found: &[Option<usize>],
    ) -> StoreResult<Vec<(MonitorId, PingId)>> {
        let (mut ping_ids, mut ids) = (Vec::new(), Vec::new());
        for ((one, target), _) in incoming
            .iter()
            .zip(targets)
            .zip(found)
            .filter(|(_, place)| place.is_none())
        {
            match &one.address {
                Address::Ping(id) => ping_ids.push(id.0),
                Address::Slug { .. } => ids.extend(target.monitor.map(|id| id.0)),
            }
        }
        if ping_ids.is_empty() && ids.is_empty() {
            return Ok(Vec::new());
        }
        deadbeat_store::monitor::existing(tx, &ping_ids, &ids).await
    }

    /// Writes the signals and commits. Returns the results in the order of the signals.
    ///
    /// `place` is the name and the number up to which this transaction writes everything. The transaction itself stores it.
    pub(super) async fn write(
        &mut self,
        taken: Taken,
        incoming: &[&Incoming],
        place: Option<Place>,
    ) -> StoreResult<Vec<Fate>> {
        let Taken {
            mut tx,
            mut monitors,
            places,
        } = taken;
        let mut named: Vec<(MonitorId, Uuid)> = incoming
            .iter()
            .zip(&places)
            .filter_map(|(one, place)| Some((monitors.get(*place.as_ref().ok()?)?.id, one.signal.run_id?)))
            .collect();
        named.sort_unstable();
        named.dedup();
        deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &named).await?;
        let crowded = crowded(&monitors);

        let mut fates = Vec::with_capacity(incoming.len());
        let mut batch = Batch {
            writer: place.map(|place| (place.writer, place.number)),
            ..Batch::default()
        };
        // In the order of the signals. If a success follows a failure, the failure must not open its incident after the success has resolved it.
        let mut happened: Vec<(SignalledMonitor, &Signal, OccurrenceKind)> = Vec::new();
        // Monitors whose latest signal opens an incident unless one is open. A further failure of such a monitor is not recorded again.
        let mut reported_down: HashSet<usize> = HashSet::new();
        let mut changed_runs: HashSet<RunKey> = HashSet::new();
        let now = self.clock.now();
        for monitor in &mut monitors {
            forget_times_to_come(&mut monitor.state, now);
        }
        for (one, place) in incoming.iter().zip(places) {
            let place = match place {
                Ok(place) => place,
                Err(fate) => {
                    fates.push(fate);
                    continue;
                }
            };
            fates.push(Fate::Answered(Accepted::Recorded));
            let monitor = &mut monitors[place];
            let effect = on_ping(&mut monitor.state, &one.signal);
            if effect.is_known {
                // The signal was written before, but its answer was lost.
                continue;
            }
            batch.pings.push(new_ping(monitor, one));
            changed_runs.extend(effect.runs);
            let changes_incident = match effect.consequence {
                Consequence::Open(_) => reported_down.insert(place),
                Consequence::Resolve => {
                    reported_down.remove(&place);
                    true
                }
                Consequence::Join | Consequence::Calm { .. } | Consequence::Nothing => false,
            };
            if changes_incident || effect.transition.is_some() {
                let what = OccurrenceKind::Decided {
                    transition: effect.transition,
                    consequence: effect.consequence,
                    at: one.signal.received_at,
                };
                happened.push((monitor.clone(), &one.signal, what));
            }
        }
        // Signals that change nothing need no commit, except in a replay, which must advance the writer's number.
        if batch.pings.is_empty() && !place.is_some_and(|place| place.is_replay) {
            return Ok(fates);
        }

        for monitor in &monitors {
            let changed = monitor
                .state
                .runs
                .iter()
                .filter(|run| changed_runs.contains(&run.key));
            let key = monitor.key();
            batch.runs.extend(changed.map(|run| (key, run.clone())));
        }
        batch.monitors = monitors.iter().map(Stateful::changed).collect();
        deadbeat_store::monitor::batch::write(&mut tx, &batch).await?;
        if !crowded.is_empty() {
            deadbeat_store::monitor::run::prune(&mut tx, &crowded).await?;
        }
        let transitions = whole(&mut tx, &happened).await?;
        let beat = |monitor: &Monitor| Some((monitor.project_id, monitor.beat_id?));
        let fed: Vec<(ProjectId, BeatId)> = transitions.iter().filter_map(beat).collect();
        let beats = if fed.is_empty() {
            Vec::new()
        } else {
            deadbeat_store::celery::beat::by_ids(&mut tx, &fed).await?
        };
        let occurrences: Vec<Occurrence<'_>> = transitions
            .iter()
            .zip(&happened)
            .map(|(monitor, (_, signal, what))| Occurrence {
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
        incident::record(&mut tx, &self.site, &occurrences).await?;
        tx.commit().await?;
        if !occurrences.is_empty() {
            self.outbox_bell.notify_one();
        }
        Ok(fates)
    }
}

/// Returns the run ids with so many ended runs that there may be too many: some client sends the same id again and again.
fn crowded(monitors: &[SignalledMonitor]) -> Vec<(MonitorKey, Uuid)> {
    let mut ended: HashMap<(MonitorKey, Uuid), i64> = HashMap::new();
    for monitor in monitors {
        for run in monitor.state.runs.iter().filter(|run| !run.is_open()) {
            if let Some(run_id) = run.run_id {
                *ended.entry((monitor.key(), run_id)).or_default() += 1;
            }
        }
    }
    ended.retain(|_, count| *count >= LOADED_RUNS_OF_ID);
    ended.into_keys().collect()
}

/// Loads the whole monitors for these changes, each in the state that it had at its change.
async fn whole(
    tx: &mut Tx,
    happened: &[(SignalledMonitor, &Signal, OccurrenceKind)],
) -> StoreResult<Vec<Monitor>> {
    if happened.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<MonitorKey> = happened.iter().map(|(signalled, _, _)| signalled.key()).collect();
    let stored = deadbeat_store::monitor::by_keys(tx, &keys).await?;
    let stored: HashMap<MonitorId, Monitor> =
        stored.into_iter().map(|monitor| (monitor.id, monitor)).collect();
    let then = |signalled: &SignalledMonitor| {
        stored.get(&signalled.id).map(|monitor| Monitor {
            state: signalled.state.clone(),
            ..monitor.clone()
        })
    };
    // Their rows are locked, so none can be missing.
    happened
        .iter()
        .map(|(signalled, _, _)| {
            then(signalled).ok_or_else(|| {
                StoreError::Corrupt(format!("monitor {} vanished while it was locked", signalled.id))
            })
        })
        .collect()
}

fn new_ping<'a>(monitor: &SignalledMonitor, incoming: &'a Incoming) -> NewPing<'a> {
    let signal = &incoming.signal;
    NewPing {
        project_id: monitor.project_id,
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
        body: &incoming.body,
    }
}

/// Cuts a header to the length that the server keeps.
fn clip(text: &str) -> Cow<'_, str> {
    Text::clean(text, limits::HEADER_CHARS)
}
