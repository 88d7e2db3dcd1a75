//! One sweep of overdue Beats.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat;
use deadbeat_domain::celery::beat::crash_loop;
use deadbeat_domain::celery::switch::{self, Switch};
use deadbeat_domain::change::Trigger;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{SubjectKey, SubjectKind};
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::{StoreResult, with_sources};

use super::{ASIDE, BATCH, Batched, Evaluator, Swept, downs};
use crate::celery::beat::incarnation;
use crate::celery::host::{self, Fallen};
use crate::celery::result_backend::report;
use crate::incident;
use crate::incident::changed::{Changed, News, What};

/// A Beat whose broker is away is looked at again after this.
const HELD: TimeDelta = TimeDelta::seconds(2);

/// Brokers are looked at every ten seconds; one that hangs takes its time to answer.
const NEXT_LOOK: TimeDelta = TimeDelta::seconds(20);

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

impl Evaluator {
    /// One batch of Beats.
    pub(super) async fn sweep_beats(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
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
                    deadbeat_store::celery::beat::set_aside(
                        &mut tx,
                        unreadable.project_id,
                        unreadable.id,
                        now + ASIDE,
                    )
                    .await?;
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
                && report::is_troubled(
                    deadbeat_store::celery::result_backend::of_beat(&mut tx, beat.project_id, beat.id)
                        .await?
                        .as_ref(),
                )
            {
                switch::hold(&mut beat.state, now + HELD);
            }
            let mut crashes = Vec::new();
            if cause == Cause::BeatDown {
                crashes = incarnation::crashes_of(&mut tx, beat, now, &spells).await?;
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
        let are_over: Vec<SubjectKey> = beats
            .iter()
            .zip(&transitions)
            .filter(|(_, transition)| transition.is_some_and(|transition| transition.to != Status::Down))
            .map(|(beat, _)| (beat.project_id, SubjectKind::Beat, beat.id.0))
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
}
