//! Gathers the known facts when monitors are judged: their Beats, and the brokers, queues and workers of their applications.

pub(crate) mod view;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::beat::crash_loop::{self, Course};
use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_domain::celery::beat::lineage::{self, Bits};
use deadbeat_domain::celery::beat::{BeatView, is_alerted_of_crashes};
use deadbeat_domain::celery::blame::view::{StageView, WorkerView};
use deadbeat_domain::celery::blame::{BROKER_RETURN, Evidence, PartOf};
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::celery::worker::stranger::VANISHED_FOR;
use deadbeat_domain::ids::{BeatId, MonitorId, MonitorKey, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::slot::early;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::celery::queue::Queue;
use deadbeat_store::celery::trace::stage::RunProgress;
use deadbeat_store::celery::worker::Worker;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::{StoreResult, Tx};
use uuid::Uuid;

use self::view::{CANARY, LEFT_FOR, broker_view, longest_wait, queue_view, worker_view};
use crate::celery::result_backend;
use crate::incident::changed::{Background, Named};

/// The current state of an application's parts.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    /// The application's broker.
    pub(crate) broker: Option<Broker>,
    /// The application's queues.
    pub(crate) queues: Vec<Queue>,
    /// The application's workers.
    pub(crate) workers: Vec<Worker>,
    /// The same facts in the form of the rules.
    evidence: Evidence,
    /// Beats and workers that are silent as part of a host's incident, with that host.
    hosts: HashMap<Uuid, Uuid>,
}

/// The known facts about the monitors of a sweep.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    beats: HashMap<BeatId, Beat>,
    scenes: HashMap<(ProjectId, String), Scene>,
    stages: HashMap<MonitorId, RunProgress>,
    /// The processes of Beats. If a Beat has several, also the lineages that list a monitor's entry.
    incarnations: HashMap<BeatId, Vec<Incarnation>>,
    listed_by: HashMap<MonitorId, Bits>,
    /// For these lineages of Beats: how their processes follow each other, and which of them crashed.
    courses: HashMap<(BeatId, Bits), (Course, Vec<Incarnation>)>,
    now: DateTime<Utc>,
}

impl Surroundings {
    /// Reads all facts for these monitors, once per application.
    pub(crate) async fn gather(tx: &mut Tx, monitors: &[&Monitor], now: DateTime<Utc>) -> StoreResult<Self> {
        let beat = |monitor: &&Monitor| Some((monitor.project_id, monitor.beat_id?));
        let mut ids: Vec<(ProjectId, BeatId)> = monitors.iter().filter_map(beat).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let beats = deadbeat_store::celery::beat::by_ids(tx, &ids).await?;
        let mut scenes = HashMap::new();
        for beat in &beats {
            let scene = scene(tx, beat, now).await?;
            scenes.insert((beat.project_id, beat.name.clone()), scene);
        }
        let incarnations = deadbeat_store::celery::beat::lineage::of_beats(tx, &ids).await?;
        let of_several: Vec<(ProjectId, MonitorId)> = monitors
            .iter()
            .filter(|monitor| {
                let processes = monitor.beat_id.and_then(|id| incarnations.get(&id));
                processes.is_some_and(|known| known.len() > 1)
            })
            .map(|monitor| (monitor.project_id, monitor.id))
            .collect();
        let listed_by = if of_several.is_empty() {
            HashMap::new()
        } else {
            deadbeat_store::celery::beat::lineage::of_monitors(tx, &of_several).await?
        };
        let fed = monitors.iter().filter(|monitor| monitor.beat_id.is_some());
        // For the slot that is due, not for later slots.
        let since = |monitor: &Monitor| monitor.state.next_due_at.map(|due| due - early(&monitor.state));
        let (fed, since): (Vec<MonitorKey>, Vec<Option<DateTime<Utc>>>) = fed
            .map(|monitor| ((monitor.project_id, monitor.id), since(monitor)))
            .unzip();
        let stages = deadbeat_store::celery::trace::stage::of_monitors(tx, &fed, &since).await?;
        Ok(Self {
            beats: beats.into_iter().map(|beat| (beat.id, beat)).collect(),
            scenes,
            incarnations,
            listed_by,
            courses: HashMap::new(),
            now,
            stages: stages
                .into_iter()
                .map(|stage| (stage.monitor_id, stage))
                .collect(),
        })
    }

    /// Finds out whether the Beats of these monitors are in a crash loop.
    pub(crate) fn note_courses(&mut self, monitors: &[&Monitor], spells: &[BlindSpell]) {
        for monitor in monitors {
            let Some((beat, lineages)) = self.lineages(monitor) else {
                continue;
            };
            let (key, is_alerted) = ((beat.id, lineages), is_alerted_of_crashes(&beat.state));
            let Some(known) = self.incarnations.get(&key.0) else {
                continue;
            };
            let now = self.now;
            self.courses.entry(key).or_insert_with(|| {
                let crashes = crash_loop::crashes(known, lineages, is_alerted, now, spells);
                (Course::of(&crashes), crashes.into_iter().cloned().collect())
            });
        }
    }

    /// Returns the Beat of a monitor's entry, and the lineages that list the entry.
    fn lineages(&self, monitor: &Monitor) -> Option<(&Beat, Bits)> {
        let listed_by = self.listed_by.get(&monitor.id).copied();
        Some((
            self.beat(monitor)?,
            listed_by.filter(|by| *by != 0).unwrap_or(Bits::MAX),
        ))
    }

    fn course(&self, monitor: &Monitor) -> Option<&(Course, Vec<Incarnation>)> {
        let (beat, lineages) = self.lineages(monitor)?;
        self.courses.get(&(beat.id, lineages))
    }

    /// Records that a monitor named this subject a moment ago. Monitors that are judged later join the subject's incident.
    pub(crate) fn note_named(&mut self, monitor: &Monitor, subject: PartOf) {
        let Some(beat) = self.beat(monitor) else {
            return;
        };
        let key = (beat.project_id, beat.name.clone());
        if let Some(scene) = self.scenes.get_mut(&key)
            && !scene.evidence.open.contains(&subject)
        {
            scene.evidence.open.push(subject);
        }
    }

    /// Returns the Beat of a monitor's entry.
    pub(crate) fn beat(&self, monitor: &Monitor) -> Option<&Beat> {
        monitor.beat_id.and_then(|id| self.beats.get(&id))
    }

    /// Returns the stage that the monitor's newest run has reached.
    pub(crate) fn stage(&self, monitor: &Monitor) -> Option<&RunProgress> {
        self.stages.get(&monitor.id)
    }

    /// Returns the parts of the monitor's application.
    pub(crate) fn scene(&self, monitor: &Monitor) -> Option<&Scene> {
        let beat = self.beat(monitor)?;
        self.scenes.get(&(beat.project_id, beat.name.clone()))
    }

    /// Returns the subject of the incident. A Beat or a worker that is lost with its host has no incident of its own, only the host has.
    pub(crate) fn or_host(&self, monitor: &Monitor, subject: (SubjectKind, Uuid)) -> (SubjectKind, Uuid) {
        let host = self.scene(monitor).and_then(|scene| scene.hosts.get(&subject.1));
        host.map_or(subject, |host| (SubjectKind::Host, *host))
    }

    /// Returns the facts in the form of an explanation.
    pub(crate) fn background(&self, monitor: &Monitor) -> Background<'_> {
        let scene = self.scene(monitor);
        Background {
            beat: self.beat(monitor),
            crashes: self.course(monitor).map_or(&[], |(_, crashes)| crashes),
            stage: self.stage(monitor),
            broker: scene.and_then(|scene| scene.broker.as_ref()),
            queues: scene.map_or(&[], |scene| &scene.queues),
            workers: scene.map_or(&[], |scene| &scene.workers),
        }
    }

    /// Returns a subject that a monitor names.
    pub(crate) fn named<'a>(
        &'a self,
        monitor: &'a Monitor,
        (kind, id): (SubjectKind, Uuid),
    ) -> Option<Named<'a>> {
        let background = self.background(monitor);
        let name = match kind {
            SubjectKind::Monitor | SubjectKind::ResultBackend | SubjectKind::Host => None,
            SubjectKind::Beat => background.beat.map(|beat| &beat.name),
            SubjectKind::Broker => background.broker.map(|broker| &broker.app),
            SubjectKind::Queue => background
                .queues
                .iter()
                .find(|queue| queue.id.0 == id)
                .map(|queue| &queue.name),
            SubjectKind::Worker => background
                .workers
                .iter()
                .find(|worker| worker.id.0 == id)
                .map(|worker| &worker.name),
        }?;
        Some(Named {
            subject: Subject {
                kind,
                id,
                name: name.clone(),
            },
            monitor,
            background,
        })
    }

    /// Returns the facts in the form of the rules.
    pub(crate) fn evidence(&self, monitor: &Monitor) -> Evidence {
        let Some(beat) = self.beat(monitor) else {
            return Evidence::default();
        };
        let mut evidence = self
            .scene(monitor)
            .map(|scene| scene.evidence.clone())
            .unwrap_or_default();
        let whole = beat.view();
        let known = self.incarnations.get(&beat.id);
        let back_at = known.and_then(|known| known.iter().map(|one| one.since).max());
        let view = match known {
            Some(known) => {
                let listed_by = self.listed_by.get(&monitor.id).copied().unwrap_or(0);
                let is_alerted =
                    beat.state.status == Status::Down && beat.state.trouble == Some(Cause::BeatDown);
                lineage::view(known, listed_by, whole, is_alerted, self.now)
            }
            None => whole,
        };
        evidence.beat = Some(BeatView { back_at, ..view });
        evidence.course = self
            .course(monitor)
            .map_or(Course::default(), |(course, _)| *course);
        evidence.is_canary = monitor
            .registered
            .as_ref()
            .and_then(|registered| registered.get("task")?.as_str())
            == Some(CANARY);
        evidence.stage = self.stage(monitor).map(|stage| StageView {
            published_at: stage.published_at,
            received_at: stage.received_at,
            heard_at: stage.heard_at,
            queue: stage.queue.clone(),
            worker: stage.worker.clone(),
            is_expired: stage.is_expired,
            task: monitor
                .registered
                .as_ref()
                .and_then(|registered| Some(registered.get("task")?.as_str()?.to_owned())),
        });
        evidence
    }
}

/// Reads the parts of an application.
async fn scene(tx: &mut Tx, beat: &Beat, now: DateTime<Utc>) -> StoreResult<Scene> {
    let (project, app) = (beat.project_id, beat.name.as_str());
    let mut scene = Scene {
        broker: deadbeat_store::celery::broker::of_app(tx, project, app).await?,
        queues: deadbeat_store::celery::queue::of_app(tx, project, app).await?,
        workers: deadbeat_store::celery::worker::of_app(tx, project, app).await?,
        evidence: Evidence::default(),
        hosts: HashMap::new(),
    };
    let identity = scene.broker.as_ref().and_then(|broker| {
        let sample = broker.sample.as_ref()?;
        sample.get("identity")?.as_str()
    });
    if let Some(identity) = identity {
        let beside = deadbeat_store::celery::worker::beside(tx, project, app, identity).await?;
        scene.workers.extend(beside);
    }
    // Workers that left long ago do not matter for runs that are due now.
    scene.workers.retain(|worker| {
        worker.state.status != Status::Paused
            || worker.state.last_seen_at.is_some_and(|at| now - at < LEFT_FOR)
    });
    let strangers = match &scene.broker {
        Some(broker) => deadbeat_store::celery::worker::stranger::of_broker(tx, project, broker.id).await?,
        None => Vec::new(),
    };
    let swallowing = if strangers.is_empty() {
        Vec::new()
    } else {
        let vanished = deadbeat_store::celery::worker::stranger::vanished(tx, project, app).await?;
        // Also count a worker that has only just answered: the verdict waits until it is known whether this worker reports.
        let taken = |queue: &&Queue| strangers.iter().any(|one| one.may_take_from(&queue.name, now));
        // Runs that vanished long ago belong to an incident that has ended.
        let since = |queue: &Queue| {
            vanished
                .get(&queue.id)
                .copied()
                .filter(|at| now - *at < VANISHED_FOR)
        };
        let queues = scene.queues.iter().filter(taken);
        queues.map(|queue| (queue.id, since(queue))).collect()
    };
    scene.hosts = hosts(tx, beat, &scene).await?;
    let broker_back_at = match &scene.broker {
        Some(broker) if broker.state.status != Status::Down => {
            deadbeat_store::celery::broker::back_at(tx, broker, now - BROKER_RETURN).await?
        }
        _ => None,
    };
    let open = open_subjects(tx, beat, &scene).await?;
    let result_backend = result_backend::view(tx, scene.broker.as_ref(), now).await?;
    let backend_outage = result_backend::last_outage(tx, scene.broker.as_ref(), now).await?;
    scene.evidence = Evidence {
        open,
        result_backend,
        backend_outage,
        longest_wait: Some(longest_wait(scene.broker.as_ref())),
        strangers: swallowing,
        broker: scene
            .broker
            .as_ref()
            .map(|broker| broker_view(broker, broker_back_at, now)),
        queues: scene
            .queues
            .iter()
            .map(|queue| {
                let is_taken = strangers.iter().any(|one| one.may_take_from(&queue.name, now));
                let has_others = is_taken || queue.flow.has_others(longest_wait(scene.broker.as_ref()), now);
                queue_view(queue, has_others)
            })
            .collect(),
        workers: scene
            .workers
            .iter()
            .map(|worker| WorkerView {
                is_foreign: worker.app != app,
                ..worker_view(worker)
            })
            .collect(),
        ..Evidence::default()
    };
    Ok(scene)
}

/// Returns the hosts with which Beat and workers of an application are lost.
async fn hosts(tx: &mut Tx, beat: &Beat, scene: &Scene) -> StoreResult<HashMap<Uuid, Uuid>> {
    let is_down = |state: &Switch| state.status == Status::Down;
    let workers = scene.workers.iter().filter(|worker| is_down(&worker.state));
    let down: Vec<Uuid> = workers
        .map(|worker| worker.id.0)
        .chain(is_down(&beat.state).then_some(beat.id.0))
        .collect();
    deadbeat_store::celery::host::of_parts(tx, beat.project_id, &down).await
}

/// Returns the parts of an application that have an open incident.
async fn open_subjects(tx: &mut Tx, beat: &Beat, scene: &Scene) -> StoreResult<Vec<PartOf>> {
    let parts = std::iter::once((SubjectKind::Beat, beat.id.0, PartOf::Beat))
        .chain(
            scene
                .broker
                .iter()
                .map(|one| (SubjectKind::Broker, one.id.0, PartOf::Broker(one.id))),
        )
        .chain(
            scene
                .queues
                .iter()
                .map(|one| (SubjectKind::Queue, one.id.0, PartOf::Queue(one.id))),
        )
        .chain(
            scene
                .workers
                .iter()
                .map(|one| (SubjectKind::Worker, one.id.0, PartOf::Worker(one.id))),
        );
    let parts: Vec<(SubjectKind, Uuid, PartOf)> = parts.collect();
    let subjects: Vec<(SubjectKind, Uuid)> = parts.iter().map(|(kind, id, _)| (*kind, *id)).collect();
    let open = deadbeat_store::incident::subjects_open(tx, beat.project_id, &subjects).await?;
    Ok(parts
        .into_iter()
        .filter(|(kind, id, _)| open.contains(&(*kind, *id)) || scene.hosts.contains_key(id))
        .map(|(.., part)| part)
        .collect())
}
