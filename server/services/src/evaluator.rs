//! The one loop that finds what is overdue: silence becomes an incident.
//!
//! It sleeps until the nearest deadline, a second at most. Any number of processes may sweep: each takes a bounded batch of rows
//! that nobody else holds, and decides and writes in one transaction. A row that cannot be read is put aside for an hour and
//! reported; it never stalls the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::beat::BeatView;
use deadbeat_domain::blind_spell::{BlindSpell, is_blind};
use deadbeat_domain::cause::Cause;
use deadbeat_domain::ids::BeatId;
use deadbeat_domain::status::Status;
use deadbeat_domain::switch;
use deadbeat_domain::time::Clock;
use deadbeat_domain::transition::{Silence, Transition, Trigger, on_resume, on_silence};
use deadbeat_store::batch::Batch;
use deadbeat_store::monitor::{Monitor, Stateful};
use deadbeat_store::{Store, StoreResult, Tx};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Site;
use crate::incident::{self, Changed, News, What};
use crate::listening::LONGEST_EXCUSE;
use crate::outbox::{self, Telling};
use crate::selfwatch::Selfwatch;

/// Rows of one transaction.
const BATCH: i64 = 500;
/// The longest sleep: a deadline that another process wrote is seen after that at the latest.
const LONGEST_SLEEP: TimeDelta = TimeDelta::seconds(1);
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

/// Sweeps.
pub struct Evaluator {
    store: Store,
    clock: Arc<dyn Clock>,
    site: Site,
    outbox_bell: Arc<Notify>,
    selfwatch: Selfwatch,
    settling: TimeDelta,
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
        }
    }

    /// Judges what was overdue this long ago: a ping that came in time, and is still on its way through the writer, beats the silence.
    #[must_use]
    pub fn settling(self, settling: TimeDelta) -> Self {
        Self { settling, ..self }
    }

    /// Sweeps until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let pause = match self.sweep_once().await {
                Ok(swept) => {
                    self.selfwatch.swept(self.clock.now());
                    self.selfwatch.found(swept.down);
                    if swept.down > 0 || swept.reminded > 0 {
                        tracing::info!(swept.down, swept.reminded, "incidents");
                    }
                    self.pause().await
                }
                Err(error) => {
                    tracing::warn!(%error, "a sweep failed");
                    LONGEST_SLEEP
                }
            };
            let pause = pause
                .clamp(TimeDelta::zero(), LONGEST_SLEEP)
                .to_std()
                .unwrap_or(Duration::ZERO);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long until something may be overdue.
    async fn pause(&self) -> TimeDelta {
        match deadbeat_store::monitor::nearest_check(&self.store.reader()).await {
            // Not at once again: a row that somebody holds would otherwise make the loop spin.
            Ok(Some(at)) => (at - (self.clock.now() - self.settling)).max(TimeDelta::milliseconds(20)),
            Ok(None) | Err(_) => LONGEST_SLEEP,
        }
    }

    /// Judges everything that is overdue now. Beats first: a monitor's verdict asks for its Beat's.
    ///
    /// # Errors
    /// When the database is away. What was committed stays.
    pub async fn sweep_once(&self) -> StoreResult<Swept> {
        let mut swept = Swept::default();
        // One look at the clock for all that follows: were it stepped on in between, all would be overdue and nobody excused.
        let now = self.clock.now();
        // While nobody listens, or what was heard is not written yet, silence means nothing.
        let listening = deadbeat_store::listener::listening(&self.store.reader(), now).await?;
        if is_blind(listening.last_stamp, now) || listening.spooled > 0 {
            return Ok(swept);
        }
        let judged_at = now - self.settling;
        while self.sweep_beats(&mut swept, judged_at).await? {}
        while self.sweep_workers(&mut swept, judged_at).await? {}
        while self.sweep_monitors(&mut swept, judged_at).await? {}
        while self.remind(&mut swept).await? {}
        if swept.down > 0 || swept.reminded > 0 {
            self.outbox_bell.notify_one();
        }
        Ok(swept)
    }

    /// One batch of Beats. True: there may be more.
    async fn sweep_beats(&self, swept: &mut Swept, now: DateTime<Utc>) -> StoreResult<bool> {
        let mut tx = self.store.begin().await?;
        let mut beats = deadbeat_store::beat::claim_overdue(&mut tx, now, BATCH).await?;
        if beats.is_empty() {
            return Ok(false);
        }
        let full = beats.len() as i64 == BATCH;
        let spells = self.spells(&mut tx, now).await?;
        let mut transitions = Vec::new();
        for beat in &mut beats {
            swept.claimed += 1;
            transitions.push(switch::on_silence(&mut beat.state, Cause::BeatDown, now, &spells));
            deadbeat_store::beat::update(&mut tx, beat, true).await?;
        }
        let news: Vec<News<'_>> = beats
            .iter()
            .zip(transitions)
            .filter_map(|(beat, transition)| {
                Some(News {
                    changed: Changed::Beat(beat),
                    what: What::Transition(transition?),
                })
            })
            .collect();
        swept.down += news.len();
        incident::record(&mut tx, &self.site, &news).await?;
        tx.commit().await?;
        Ok(full)
    }

    /// One batch of workers. True: there may be more.
    async fn sweep_workers(&self, swept: &mut Swept, now: DateTime<Utc>) -> StoreResult<bool> {
        let mut tx = self.store.begin().await?;
        let mut workers = deadbeat_store::worker::claim_overdue(&mut tx, now, BATCH).await?;
        if workers.is_empty() {
            return Ok(false);
        }
        let full = workers.len() as i64 == BATCH;
        let spells = self.spells(&mut tx, now).await?;
        let mut transitions = Vec::new();
        for worker in &mut workers {
            swept.claimed += 1;
            transitions.push(deadbeat_domain::worker::on_silence(
                &mut worker.state,
                now,
                &spells,
            ));
            deadbeat_store::worker::update(&mut tx, worker, true).await?;
        }
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
        swept.down += news
            .iter()
            .filter(|one| matches!(one.what, What::Transition(transition) if transition.to == Status::Down))
            .count();
        incident::record(&mut tx, &self.site, &news).await?;
        tx.commit().await?;
        Ok(full)
    }

    /// One batch of monitors. True: there may be more.
    async fn sweep_monitors(&self, swept: &mut Swept, now: DateTime<Utc>) -> StoreResult<bool> {
        let mut tx = self.store.begin().await?;
        let mut monitors: Vec<Monitor> = Vec::new();
        let mut claimed = 0;
        for row in deadbeat_store::monitor::claim_overdue(&mut tx, now, BATCH).await? {
            claimed += 1;
            match row {
                Ok(monitor) => monitors.push(monitor),
                Err(unreadable) => {
                    tracing::error!(monitor.id = %unreadable.id, error = %unreadable.error, "a monitor cannot be judged; put aside");
                    self.selfwatch.put_aside();
                    deadbeat_store::monitor::set_aside(&mut tx, unreadable.id, now + ASIDE).await?;
                }
            }
        }
        if claimed == 0 {
            return Ok(false);
        }
        swept.claimed += claimed;
        let spells = self.spells(&mut tx, now).await?;
        deadbeat_store::run::load_into(&mut tx, &mut monitors, &[]).await?;
        let ids: Vec<BeatId> = monitors.iter().filter_map(|monitor| monitor.beat_id).collect();
        let beats: HashMap<BeatId, (String, BeatView)> = if ids.is_empty() {
            HashMap::new()
        } else {
            deadbeat_store::beat::views(&mut tx, &ids)
                .await?
                .into_iter()
                .map(|(id, name, view)| (id, (name, view)))
                .collect()
        };

        let mut batch = Batch {
            moves_check: true,
            ..Batch::default()
        };
        let mut recorded: Vec<(usize, Transition)> = Vec::new();
        for (place, monitor) in monitors.iter_mut().enumerate() {
            let beat = monitor.beat_id.and_then(|id| beats.get(&id));
            let Silence::Down { transition, overruns } =
                on_silence(&mut monitor.state, beat.map(|(_, view)| view), now, &spells)
            else {
                continue;
            };
            swept.down += 1;
            recorded.push((place, transition));
            let runs = monitor
                .state
                .runs
                .iter()
                .filter(|run| overruns.contains(&run.key));
            batch.runs.extend(runs.map(|run| (monitor.id, run.clone())));

            if let (Trigger::BeatSilent, Some(beat_id)) = (transition.trigger, monitor.beat_id)
                && !deadbeat_store::incident::join_beat(&mut tx, beat_id, monitor.id, now).await?
            {
                // Its Beat came back between the two looks: it is expected anew.
                recorded
                    .extend(on_resume(&mut monitor.state, Trigger::BeatBack, now).map(|back| (place, back)));
            }
        }
        batch.monitors = monitors.iter().map(Stateful::changed).collect();
        deadbeat_store::batch::write(&mut tx, &batch).await?;
        let news: Vec<News<'_>> = recorded
            .iter()
            .map(|(place, transition)| {
                let monitor = &monitors[*place];
                let beat = monitor.beat_id.and_then(|id| beats.get(&id));
                News {
                    changed: Changed::Monitor(monitor, beat.map(|(name, _)| name.as_str())),
                    what: What::Transition(*transition),
                }
            })
            .collect();
        incident::record(&mut tx, &self.site, &news).await?;
        tx.commit().await?;
        Ok(claimed as i64 == BATCH)
    }

    /// When we could not listen: what may excuse somebody today.
    async fn spells(&self, tx: &mut Tx, now: DateTime<Utc>) -> StoreResult<Vec<BlindSpell>> {
        deadbeat_store::listener::spells_since(tx, now - LONGEST_EXCUSE).await
    }

    /// Tells again about incidents that stay open. True: there may be more.
    async fn remind(&self, swept: &mut Swept) -> StoreResult<bool> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let incidents = deadbeat_store::incident::claim_reminders(&mut tx, now, BATCH).await?;
        // One that has no next time belongs to a project that has switched its reminders off since.
        let tellings: Vec<Telling<'_>> = incidents
            .iter()
            .filter(|incident| incident.remind_at.is_some())
            .map(|incident| Telling {
                alert: Alert::Reminder,
                incident,
                monitor: None,
                at: now,
            })
            .collect();
        outbox::tell(&mut tx, &self.site, &tellings).await?;
        swept.reminded += tellings.len();
        if incidents.is_empty() {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(incidents.len() as i64 == BATCH)
    }
}
