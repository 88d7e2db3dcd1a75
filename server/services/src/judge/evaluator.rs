//! The one loop that finds what is overdue: silence becomes an incident.
//!
//! It sleeps until the nearest deadline, a second at most. Any number of processes may sweep: each takes bounded batches of rows
//! that nobody else holds, and decides and writes each in one transaction; in a storm, several of them at once. A row that cannot be
//! read is put aside for an hour and reported; it never stalls the rest.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::celery::beat;
use deadbeat_domain::celery::beat::crash_loop;
use deadbeat_domain::celery::blame::{Evidence, PartOf};
use deadbeat_domain::celery::switch::{self, Switch};
use deadbeat_domain::celery::worker::incarnation::next_look;
use deadbeat_domain::celery::worker::stranger::VANISHED_FOR;
use deadbeat_domain::celery::worker::succession::{self, of_lost};
use deadbeat_domain::ids::{IncidentId, MonitorId, ProjectId, QueueId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{SubjectKind, is_reminder_told};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::{Silence, Transition, Trigger, on_resume, on_silence};
use deadbeat_domain::time::Clock;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::judge::evaluator::Agenda;
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{Store, StoreResult, Tx, with_sources};
use futures::future::try_join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Site;
use crate::alert::outbox::{self, Telling};
use crate::celery::beat::incarnation;
use crate::celery::gather::Known;
use crate::celery::host::{self, Fallen};
use crate::celery::trace::unbegun;
use crate::celery::worker::orphan::{self, Colleagues, Owners};
use crate::celery::{broker, result_backend};
use crate::incident::{self, Background, Changed, Named, News, What};
use crate::judge::blind_notice;
use crate::operation::listening::LONGEST_EXCUSE;
use crate::operation::selfwatch::Selfwatch;
use crate::operation::supervisor::Health;

/// Rows of one transaction.
const BATCH: i64 = 1_000;
/// Transactions at once while full batches come back: one computes and waits for the disk while the other's rows are written.
const LANES: usize = 3;
/// The longest sleep: a deadline that was written meanwhile, by whomever, is seen after that at the latest. One that is nearer than that
/// when it is written is late by what is left of the second; nobody is told of it (NOTIFY), so that it costs pings nothing.
const LONGEST_SLEEP: TimeDelta = TimeDelta::seconds(1);
/// The shortest one. Pings move deadlines all the time, and what has come due in a tenth of a second is looked at together; and a row
/// that somebody holds does not make the loop spin.
const SHORTEST_SLEEP: TimeDelta = TimeDelta::milliseconds(100);
/// Microseconds between two stamps that say that this process sweeps.
const STAMP_MICROS: i64 = 1_000_000;
/// Microseconds between two looks for what nobody looks at any more.
const GIVE_UP_MICROS: i64 = 60_000_000;
/// Microseconds between two looks for runs that nobody has taken.
const UNBEGUN_MICROS: i64 = 5_000_000;
/// Microseconds between two looks at lost hosts.
const HOSTS_MICROS: i64 = 1_000_000;
/// A Beat whose broker is away is looked at again after this.
const HELD: TimeDelta = TimeDelta::seconds(2);
/// Brokers are looked at every ten seconds; one that hangs takes its time to answer.
const NEXT_LOOK: TimeDelta = TimeDelta::seconds(20);
/// After a blind spell a project is told this much later what could not be judged: by then all of it is counted.
const NOTICE_AFTER: TimeDelta = TimeDelta::seconds(10);
/// How long a row that cannot be read is put aside.
const ASIDE: TimeDelta = TimeDelta::hours(1);

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Rows looked at.
    pub claimed: usize,
    /// Rows that went down.
    pub down: usize,
    /// Incidents that were told again.
    pub reminded: usize,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.claimed += other.claimed;
        self.down += other.down;
        self.reminded += other.reminded;
    }
}

/// After this a Beat is told to be silent, whatever its broker does.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(15);
/// A broker that nobody has looked at for this long excuses nobody.
const UNSEEN_FOR: TimeDelta = TimeDelta::seconds(60);

/// Whether somebody is about to look at the broker, and has not since the Beat was last heard from.
fn is_look_awaited(beat: &Beat, broker: &Broker, now: DateTime<Utc>) -> bool {
    let Some(heard_at) = beat.state.last_seen_at else {
        return false;
    };
    broker.sampled_at.is_some_and(|seen| seen < heard_at + HELD)
        && now < heard_at + beat.state.patience() + NEXT_LOOK
}

/// How many of these went down.
fn downs(news: &[News<'_>]) -> usize {
    news.iter()
        .filter(|one| matches!(one.what, What::Transition(transition) if transition.to == Status::Down))
        .count()
}

/// Whose incident a monitor joins.
fn subject(part_of: PartOf, monitor: &Monitor) -> Option<(SubjectKind, Uuid)> {
    Some(match part_of {
        PartOf::Beat => (SubjectKind::Beat, monitor.beat_id?.0),
        PartOf::Worker(id) => (SubjectKind::Worker, id.0),
        PartOf::Queue(id) => (SubjectKind::Queue, id.0),
        PartOf::Broker(id) => (SubjectKind::Broker, id.0),
        PartOf::ResultBackend(id) => (SubjectKind::ResultBackend, id.0),
    })
}

/// What one transaction did.
struct Batched {
    swept: Swept,
    /// It was full: there may be more.
    is_full: bool,
}

/// Sweeps.
pub struct Evaluator {
    store: Store,
    clock: Arc<dyn Clock>,
    site: Site,
    outbox_bell: Arc<Notify>,
    selfwatch: Selfwatch,
    settling: TimeDelta,
    /// The listener of the same process, and the loops that its signals need.
    beside: Option<(Uuid, Health)>,
    /// Names this process among those that sweep.
    id: Uuid,
    /// When it last said so; microseconds since the epoch, 0: never.
    stamped: AtomicI64,
    /// When it last looked for what nobody looks at; microseconds since the epoch, 0: never.
    gave_up_at: AtomicI64,
    /// When it last looked for runs that nobody has taken; microseconds since the epoch, 0: never.
    unbegun_at: AtomicI64,
    /// When it last looked at lost hosts; microseconds since the epoch, 0: never.
    hosts_at: AtomicI64,
    /// After which of their incidents it goes on with that; None: with the first.
    hosts_after: Mutex<Option<IncidentId>>,
}

impl Evaluator {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        site: Site,
        outbox_bell: Arc<Notify>,
        selfwatch: Selfwatch,
    ) -> Self {
        Self {
            store,
            clock,
            site,
            outbox_bell,
            selfwatch,
            settling: TimeDelta::zero(),
            beside: None,
            id: Uuid::now_v7(),
            stamped: AtomicI64::new(0),
            gave_up_at: AtomicI64::new(0),
            unbegun_at: AtomicI64::new(0),
            hosts_at: AtomicI64::new(0),
            hosts_after: Mutex::new(None),
        }
    }

    /// Judges what was overdue this long ago: a ping that came in time, and is still on its way through the writer, beats the silence.
    #[must_use]
    pub fn settling(self, settling: TimeDelta) -> Self {
        Self { settling, ..self }
    }

    /// This process also takes signals in, under that name. It judges nobody while a loop that signals need does not work.
    #[must_use]
    pub fn beside(self, listener: Uuid, health: Health) -> Self {
        Self {
            beside: Some((listener, health)),
            ..self
        }
    }

    /// Sweeps until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let pause = match self.sweep().await {
                Ok((swept, nearest)) => {
                    self.selfwatch.found(swept.down);
                    if swept.down > 0 || swept.reminded > 0 {
                        tracing::info!(swept.down, swept.reminded, "incidents");
                    }
                    let asleep = nearest.map_or(LONGEST_SLEEP, |at| at - (self.clock.now() - self.settling));
                    asleep.max(SHORTEST_SLEEP)
                }
                Err(error) => {
                    tracing::warn!(error = %with_sources(&error), "a sweep failed");
                    LONGEST_SLEEP
                }
            };
            let pause = pause.min(LONGEST_SLEEP).to_std().unwrap_or(Duration::ZERO);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says that this process sweeps: to its own watch each time, to the other processes once a second.
    async fn stamp(&self) -> StoreResult<()> {
        let now = self.clock.now();
        self.selfwatch.swept(now);
        let before = self.stamped.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < STAMP_MICROS {
            return Ok(());
        }
        self.stamped.store(now.timestamp_micros(), Ordering::Relaxed);
        deadbeat_store::judge::evaluator::stamp(&self.store, self.id, now).await
    }

    /// Judges everything that is overdue now.
    ///
    /// # Errors
    /// When the database is away. What was committed stays.
    pub async fn sweep_once(&self) -> StoreResult<Swept> {
        Ok(self.sweep().await?.0)
    }

    /// Judges everything that is overdue now, and says when there is something to do again. Beats first: a monitor's verdict asks for its
    /// Beat's.
    async fn sweep(&self) -> StoreResult<(Swept, Option<DateTime<Utc>>)> {
        let began = Instant::now();
        // One look at the clock for all that follows: were it stepped on in between, all would be overdue and nobody excused.
        let now = self.clock.now();
        let beside = self.beside.as_ref().map(|(listener, _)| *listener);
        let agenda = deadbeat_store::judge::evaluator::agenda(&self.store.reader(), beside, now).await?;
        self.selfwatch.turned(now);
        // While nobody listens, or what was heard is not written yet, silence means nothing.
        let hears = self.beside.as_ref().is_none_or(|(_, health)| health.is_well());
        let Some(judged_until) = agenda.hearing.judged_until(now).filter(|_| hears) else {
            return Ok((Swept::default(), None));
        };
        let swept = self.work_off(&agenda, judged_until - self.settling, now).await?;
        self.selfwatch.sweep_took(began.elapsed(), swept.claimed);
        self.stamp().await?;
        Ok((swept, agenda.nearest()))
    }

    /// Does what the agenda says is due: judges what was due by `judged_at`.
    async fn work_off(
        &self,
        agenda: &Agenda,
        judged_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> StoreResult<Swept> {
        let mut swept = Swept::default();
        let is_due = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= judged_at);
        if is_due(agenda.beat) {
            loop {
                let batch = self.sweep_beats(judged_at).await?;
                self.batched(&batch, &mut swept).await?;
                if !batch.is_full {
                    break;
                }
            }
        }
        if is_due(agenda.worker) {
            loop {
                let batch = self.sweep_workers(judged_at).await?;
                self.batched(&batch, &mut swept).await?;
                if !batch.is_full {
                    break;
                }
            }
        }
        if is_due(agenda.monitor) {
            let first = self.sweep_monitors(judged_at).await?;
            self.batched(&first, &mut swept).await?;
            if first.is_full {
                for lane in try_join_all((0..LANES).map(|_| self.sweep_lane(judged_at))).await? {
                    swept.add(lane);
                }
            }
        }
        self.look_at_hosts(judged_at).await;
        self.give_up_unseen(judged_at).await;
        self.look_for_unbegun(judged_at).await;
        if agenda.notice.is_some_and(|at| at <= now) {
            blind_notice::tell_due(&self.store, now, BATCH).await?;
            self.outbox_bell.notify_one();
        }
        if agenda.reminder.is_some_and(|at| at <= now) {
            loop {
                let batch = self.remind(now).await?;
                self.batched(&batch, &mut swept).await?;
                if !batch.is_full {
                    break;
                }
            }
        }
        Ok(swept)
    }

    /// Batches of monitors, one after the other, until there are no more.
    async fn sweep_lane(&self, now: DateTime<Utc>) -> StoreResult<Swept> {
        let mut swept = Swept::default();
        loop {
            let batch = self.sweep_monitors(now).await?;
            self.batched(&batch, &mut swept).await?;
            if !batch.is_full {
                return Ok(swept);
            }
        }
    }

    /// A batch is committed: who waits for it hears of it now, not at the end of a long sweep.
    async fn batched(&self, batch: &Batched, swept: &mut Swept) -> StoreResult<()> {
        swept.add(batch.swept);
        if batch.swept.down > 0 || batch.swept.reminded > 0 {
            self.outbox_bell.notify_one();
        }
        self.stamp().await
    }

    /// One batch of Beats.
    async fn sweep_beats(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut beats = Vec::new();
        for row in deadbeat_store::celery::beat::claim_overdue(&mut tx, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(beat) => beats.push(beat),
                Err(unreadable) => {
                    tracing::error!(beat.id = %unreadable.id, error = %with_sources(&unreadable.error), "a Beat cannot be judged; set aside");
                    self.selfwatch.put_aside();
                    deadbeat_store::celery::beat::set_aside(&mut tx, unreadable.id, now + ASIDE).await?;
                }
            }
        }
        let is_full = swept.claimed as i64 == BATCH;
        if swept.claimed == 0 {
            return Ok(Batched { swept, is_full });
        }
        let spells = self.spells(&mut tx, now).await?;
        let mut transitions = Vec::new();
        let mut crashing = Vec::new();
        let before: Vec<Switch> = beats.iter().map(|beat| beat.state.clone()).collect();
        for beat in &mut beats {
            // A Beat that cannot reach its broker may hang in the attempt: that is the broker's trouble.
            let broker = deadbeat_store::celery::broker::of_app(&mut tx, beat.project_id, &beat.name).await?;
            let mut cause = beat::silence(&beat.state, beat.hung_at, now);
            // One that waits for the result backend says so, and that is told of the backend.
            if cause == Cause::BeatStalled
                && result_backend::is_troubled(
                    deadbeat_store::celery::result_backend::of_beat(&mut tx, beat.project_id, beat.id)
                        .await?
                        .as_ref(),
                )
            {
                switch::hold(&mut beat.state, now + HELD);
            }
            let mut crashes = Vec::new();
            if cause == Cause::BeatDown {
                crashes = incarnation::crashes_of(&mut tx, beat.id, now, &spells).await?;
                cause = crash_loop::silence(cause, crashes.len());
            }
            crashing.push(crashes);
            if let Some(broker) = broker {
                // As long as somebody looks: else nobody would ever say that it is back.
                let is_away = broker.state.trouble == Some(Cause::BrokerDown)
                    && broker.sampled_at.is_some_and(|at| now - at < UNSEEN_FOR)
                    && beat.state.last_seen_at.is_none_or(|at| now - at < LONGEST_HOLD);
                if is_away || (cause == Cause::BeatStalled && is_look_awaited(beat, &broker, now)) {
                    switch::hold(&mut beat.state, now + HELD);
                }
            }
            transitions.push(beat::on_silence(&mut beat.state, cause, now, &spells));
        }
        let fallen =
            beats
                .iter_mut()
                .zip(before)
                .zip(&mut transitions)
                .filter_map(|((beat, before), transition)| {
                    Fallen::of(beat.id.0, beat.project_id, &mut beat.state, before, transition)
                });
        let lost_hosts = host::judge_fallen(&mut tx, fallen.collect(), now, &spells).await?;
        deadbeat_store::celery::beat::update(&mut tx, &beats, true).await?;
        let are_over: Vec<(SubjectKind, Uuid)> = beats
            .iter()
            .zip(&transitions)
            .filter(|(_, transition)| transition.is_some_and(|transition| transition.to != Status::Down))
            .map(|(beat, _)| (SubjectKind::Beat, beat.id.0))
            .collect();
        incident::rearm_members(&mut tx, &self.site, &are_over, now).await?;
        let news: Vec<News<'_>> = beats
            .iter()
            .zip(&crashing)
            .zip(transitions)
            .filter_map(|((beat, crashes), transition)| {
                let transition = transition?;
                let changed = match transition.trigger {
                    Trigger::Trouble(Cause::BeatCrashLoop) => Changed::Crashing(beat, crashes),
                    _ => Changed::Beat(beat),
                };
                Some(News {
                    changed,
                    what: What::Transition(transition),
                })
            })
            .collect();
        swept.down += downs(&news);
        incident::record(&mut tx, &self.site, &news).await?;
        host::tell(&mut tx, &self.site, &lost_hosts, now).await?;
        tx.commit().await?;
        Ok(Batched { swept, is_full })
    }

    /// One batch of workers.
    async fn sweep_workers(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut workers = Vec::new();
        for row in deadbeat_store::celery::worker::claim_overdue(&mut tx, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(worker) => workers.push(worker),
                Err(unreadable) => {
                    tracing::error!(worker.id = %unreadable.id, error = %with_sources(&unreadable.error), "a worker cannot be judged; set aside");
                    self.selfwatch.put_aside();
                    deadbeat_store::celery::worker::set_aside(&mut tx, unreadable.id, now + ASIDE).await?;
                }
            }
        }
        let is_full = swept.claimed as i64 == BATCH;
        if swept.claimed == 0 {
            return Ok(Batched { swept, is_full });
        }
        let spells = self.spells(&mut tx, now).await?;
        let mut transitions = Vec::new();
        let mut owners = Owners::default();
        let mut colleagues = Colleagues::default();
        let before: Vec<Switch> = workers.iter().map(|worker| worker.state.clone()).collect();
        for worker in &mut workers {
            owners.look(worker, now, &spells);
            transitions.push(orphan::judge_silence(&mut tx, worker, &mut colleagues, now, &spells).await?);
        }
        let fallen = workers.iter_mut().zip(before).zip(&mut transitions).filter_map(
            |((worker, before), transition)| {
                Fallen::of(
                    worker.id.0,
                    worker.project_id,
                    &mut worker.state,
                    before,
                    transition,
                )
            },
        );
        let lost_hosts = host::judge_fallen(&mut tx, fallen.collect(), now, &spells).await?;
        for worker in &workers {
            let look_at = next_look(&worker.incarnations, &spells);
            let successor_at = of_lost(&worker.state).map(|_| now + succession::LOOK_EVERY);
            let look_at = [look_at, successor_at].into_iter().flatten().min();
            deadbeat_store::celery::worker::update(&mut tx, worker, true, look_at, None).await?;
        }
        let mut lost = Vec::new();
        let mut are_over = Vec::new();
        for (worker, transition) in workers.iter().zip(&transitions) {
            match transition.map(|transition| transition.to) {
                Some(Status::Down) => lost.push(worker),
                Some(_) => are_over.push((SubjectKind::Worker, worker.id.0)),
                None => {}
            }
        }
        let over: Vec<Uuid> = are_over.iter().map(|(_, id)| *id).collect();
        let held = deadbeat_store::monitor::lock_of_workers(&mut tx, &lost, &over, &owners.ids()).await?;
        if !lost.is_empty() {
            deadbeat_store::monitor::judge_runs_of(&mut tx, &lost, &held, now).await?;
        }
        owners.mark(&mut tx, &held, now).await?;
        incident::rearm_members(&mut tx, &self.site, &are_over, now).await?;
        let news: Vec<News<'_>> = workers
            .iter()
            .zip(transitions)
            .filter_map(|(worker, transition)| {
                Some(News {
                    changed: Changed::Worker(worker),
                    what: What::Transition(transition?),
                })
            })
            .collect();
        swept.down += downs(&news);
        incident::record(&mut tx, &self.site, &news).await?;
        host::tell(&mut tx, &self.site, &lost_hosts, now).await?;
        tx.commit().await?;
        Ok(Batched { swept, is_full })
    }

    /// One batch of monitors.
    async fn sweep_monitors(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut monitors: Vec<Monitor> = Vec::new();
        let mut claimed = 0;
        for row in deadbeat_store::monitor::claim_overdue(&mut tx, now, BATCH).await? {
            claimed += 1;
            match row {
                Ok(monitor) => monitors.push(monitor),
                Err(unreadable) => {
                    tracing::error!(monitor.id = %unreadable.id, error = %with_sources(&unreadable.error), "a monitor cannot be judged; put aside");
                    self.selfwatch.put_aside();
                    deadbeat_store::monitor::set_aside(&mut tx, unreadable.id, now + ASIDE).await?;
                }
            }
        }
        swept.claimed = claimed;
        let is_full = claimed as i64 == BATCH;
        if claimed == 0 {
            return Ok(Batched { swept, is_full });
        }
        let spells = self.spells(&mut tx, now).await?;
        deadbeat_store::monitor::run::load_into(&mut tx, &mut monitors, &[]).await?;
        // Most rows are only looked at because their `check_after` moves lazily.
        let overdue: Vec<&Monitor> = monitors
            .iter()
            .filter(|monitor| monitor.state.deadline_at.is_some_and(|deadline| deadline <= now))
            .collect();
        let mut known = Known::gather(&mut tx, &overdue, now).await?;
        known.note_courses(&overdue, &spells);

        let mut batch = Batch {
            moves_check: true,
            ..Batch::default()
        };
        let mut recorded: Vec<(usize, Transition)> = Vec::new();
        let mut joining: Vec<(usize, SubjectKind, Uuid)> = Vec::new();
        let mut naming: Vec<(usize, (SubjectKind, Uuid), Cause)> = Vec::new();
        let mut unheard: Vec<(ProjectId, BlindSpell)> = Vec::new();
        let mut vanished: Vec<QueueId> = Vec::new();
        for (place, monitor) in monitors.iter_mut().enumerate() {
            let is_overdue = monitor.state.deadline_at.is_some_and(|deadline| deadline <= now);
            let evidence = if is_overdue {
                known.evidence(monitor)
            } else {
                Evidence::default()
            };
            let changed = match on_silence(&mut monitor.state, &evidence, now, &spells) {
                Silence::NotYet => continue,
                Silence::Hold => {
                    vanished.extend(evidence.vanished_from());
                    continue;
                }
                Silence::Settled(runs) => runs,
                Silence::Unknown { spell, runs } => {
                    unheard.push((monitor.project_id, spell));
                    runs
                }
                Silence::Down {
                    transition,
                    part_of,
                    is_named,
                    overruns,
                } => {
                    swept.down += 1;
                    recorded.push((place, transition));
                    let subject = part_of
                        .and_then(|part_of| subject(part_of, monitor))
                        .map(|subject| known.or_host(monitor, subject));
                    if let (Some(part_of), Some(subject), Trigger::PartOf(cause)) =
                        (part_of, subject, transition.trigger)
                        && is_named
                    {
                        known.note_named(monitor, part_of);
                        naming.push((place, subject, cause));
                    }
                    joining.extend(subject.map(|(kind, id)| (place, kind, id)));
                    overruns
                }
            };
            let runs = monitor.state.runs.iter().filter(|run| changed.contains(&run.key));
            batch.runs.extend(runs.map(|run| (monitor.id, run.clone())));
        }
        let named: Vec<(Named<'_>, Cause)> = naming
            .iter()
            .filter_map(|(place, subject, cause)| Some((known.named(&monitors[*place], *subject)?, *cause)))
            .collect();
        incident::infer(&mut tx, &self.site, &named, now).await?;
        if !joining.is_empty() {
            let members: Vec<(SubjectKind, Uuid, MonitorId)> = joining
                .iter()
                .map(|(place, kind, subject)| (*kind, *subject, monitors[*place].id))
                .collect();
            let joined: HashSet<MonitorId> = deadbeat_store::incident::join(&mut tx, &members, now)
                .await?
                .into_iter()
                .collect();
            for (place, ..) in joining {
                let monitor = &mut monitors[place];
                if !joined.contains(&monitor.id) {
                    // Its subject came back between the two looks: it is expected anew.
                    recorded.extend(
                        on_resume(&mut monitor.state, Trigger::Restored, now).map(|back| (place, back)),
                    );
                }
            }
        }
        batch.monitors = monitors.iter().map(Stateful::changed).collect();
        deadbeat_store::monitor::batch::write(&mut tx, &batch).await?;
        blind_notice::add(&mut tx, &unheard, now + NOTICE_AFTER).await?;
        let backgrounds: Vec<Background<'_>> = recorded
            .iter()
            .map(|(place, _)| known.background(&monitors[*place]))
            .collect();
        let news: Vec<News<'_>> = recorded
            .iter()
            .zip(&backgrounds)
            .map(|((place, transition), background)| News {
                changed: Changed::Monitor(&monitors[*place], background),
                what: What::Transition(*transition),
            })
            .collect();
        incident::record(&mut tx, &self.site, &news).await?;
        tx.commit().await?;
        if !vanished.is_empty() {
            // A transaction of its own: whoever takes in a sample locks queues before monitors.
            let mut tx = self.store.begin().await?;
            deadbeat_store::celery::worker::stranger::note_vanished(&mut tx, &vanished, now, VANISHED_FOR)
                .await?;
            tx.commit().await?;
        }
        Ok(Batched { swept, is_full })
    }

    /// When we could not listen: what may excuse somebody today.
    async fn spells(&self, tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<Vec<BlindSpell>> {
        deadbeat_store::operation::listener::spells_since(tx, now - LONGEST_EXCUSE).await
    }

    /// Ends the incidents of brokers and queues that nobody looks at any more: once a minute, there is no hurry in it.
    async fn give_up_unseen(&self, now: DateTime<Utc>) {
        let before = self.gave_up_at.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < GIVE_UP_MICROS {
            return;
        }
        self.gave_up_at.store(now.timestamp_micros(), Ordering::Relaxed);
        match self.try_to_give_up_unseen(now).await {
            Ok(0) => {}
            Ok(given_up) => {
                tracing::info!(given_up, "nobody looks at these brokers and queues any more");
                self.outbox_bell.notify_one();
            }
            // Nothing else waits for it.
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "what nobody looks at any more could not be given up")
            }
        }
    }

    /// Ends the runs whose message is lost while later ones of their entry ran: every five seconds.
    async fn look_for_unbegun(&self, now: DateTime<Utc>) {
        let before = self.unbegun_at.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < UNBEGUN_MICROS {
            return;
        }
        self.unbegun_at.store(now.timestamp_micros(), Ordering::Relaxed);
        match unbegun::look_once(&self.store, &self.site, now).await {
            Ok((0, _)) => {}
            Ok((lost, down)) => {
                tracing::info!(lost, down, "messages of runs are lost");
                self.outbox_bell.notify_one();
            }
            // Nothing else waits for it.
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "runs that nobody has taken could not be looked at")
            }
        }
    }

    /// Sees which lost hosts are back, each second.
    async fn look_at_hosts(&self, now: DateTime<Utc>) {
        let before = self.hosts_at.load(Ordering::Relaxed);
        if (now.timestamp_micros() - before).abs() < HOSTS_MICROS {
            return;
        }
        self.hosts_at.store(now.timestamp_micros(), Ordering::Relaxed);
        let after = *self.hosts_after.lock().unwrap_or_else(PoisonError::into_inner);
        match host::look_once(&self.store, &self.site, now, after).await {
            Ok((over, last)) => {
                *self.hosts_after.lock().unwrap_or_else(PoisonError::into_inner) = last;
                if over > 0 {
                    tracing::info!(over, "hosts are back, or their work is done elsewhere");
                    self.outbox_bell.notify_one();
                }
            }
            // Nothing else waits for it.
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "lost hosts could not be looked at")
            }
        }
    }

    async fn try_to_give_up_unseen(&self, now: DateTime<Utc>) -> StoreResult<usize> {
        let mut tx = self.store.begin().await?;
        let spells = self.spells(&mut tx, now).await?;
        let given_up = broker::give_up_unseen(&mut tx, &self.site, now, &spells, BATCH).await?
            // Their members may have been deleted, which tells nobody.
            + incident::settle_inferred(&mut tx, &self.site, None, now).await?
            + result_backend::settle_all(&mut tx, &self.site, now, BATCH).await?;
        tx.commit().await?;
        Ok(given_up)
    }

    /// Tells again about incidents that stay open, one batch.
    async fn remind(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut incidents = Vec::new();
        for row in deadbeat_store::incident::claim_reminders(&mut tx, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(incident) => incidents.push(incident),
                Err(unreadable) => {
                    tracing::error!(incident.id = %unreadable.id, error = %with_sources(&unreadable.error), "an incident cannot be told again; set aside until its next reminder");
                    self.selfwatch.put_aside();
                }
            }
        }
        let spells = self.spells(&mut tx, now).await?;
        // One that has no next time belongs to a project that has switched its reminders off since.
        let tellings: Vec<Telling<'_>> = incidents
            .iter()
            .filter(|(incident, due_at)| incident.remind_at.is_some() && is_reminder_told(*due_at, &spells))
            .map(|(incident, _)| Telling {
                phase: Phase::Reminder,
                affected: None,
                incident,
                monitor: None,
                at: now,
                step: &[],
            })
            .collect();
        outbox::tell(&mut tx, &self.site, &tellings).await?;
        swept.reminded = tellings.len();
        let is_full = swept.claimed as i64 == BATCH;
        if swept.claimed > 0 {
            tx.commit().await?;
        }
        Ok(Batched { swept, is_full })
    }
}
