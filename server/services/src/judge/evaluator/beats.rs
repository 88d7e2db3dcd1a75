//! Beats as a kind of switch: how the sweep claims, judges and writes them.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::beat;
use deadbeat_domain::celery::beat::crash_loop;
use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_domain::celery::switch::{self, Switch};
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::{BeatId, ProjectId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::{SubjectKey, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_store::celery::beat::Beat;
use deadbeat_store::celery::broker::Broker;
use deadbeat_store::{StoreResult, Tx, Unreadable};
use uuid::Uuid;

use super::switches::Kind;
use crate::celery::beat::incarnation;
use crate::celery::result_backend::report;
use crate::incident::changed::Changed;

/// Time after which a held Beat is judged again.
const HELD: TimeDelta = TimeDelta::seconds(2);

/// Longest wait for the next sample: processes sample a broker every ten seconds, and a broker that hangs delays the
/// answer.
const NEXT_SAMPLE: TimeDelta = TimeDelta::seconds(20);

/// Longest time for which a broker's outage excuses a Beat's silence.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(15);

/// Age at which the last sample of a broker no longer excuses a Beat.
const UNSAMPLED_FOR: TimeDelta = TimeDelta::seconds(60);

/// True if a sample of the broker is still expected that can explain the Beat's silence: the last sample is not newer
/// than the Beat's last report.
fn is_sample_awaited(beat: &Beat, broker: &Broker, now: DateTime<Utc>) -> bool {
    let Some(heard_at) = beat.state.last_seen_at else {
        return false;
    };
    broker.sampled_at.is_some_and(|seen| seen < heard_at + HELD)
        && now < heard_at + beat.state.patience() + NEXT_SAMPLE
}

impl Kind for Beat {
    const SUBJECT: SubjectKind = SubjectKind::Beat;
    /// The crashed incarnations of each silent Beat.
    type Learned = HashMap<BeatId, Vec<Incarnation>>;

    fn parts(&mut self) -> (Uuid, ProjectId, &mut Switch) {
        (self.id.0, self.project_id, &mut self.state)
    }

    async fn claim(
        tx: &mut Tx,
        now: DateTime<Utc>,
        limit: i64,
    ) -> StoreResult<Vec<Result<Self, Unreadable>>> {
        deadbeat_store::celery::beat::claim_overdue(tx, now, limit).await
    }

    async fn set_aside(tx: &mut Tx, project: ProjectId, id: Uuid, until: DateTime<Utc>) -> StoreResult<()> {
        deadbeat_store::celery::beat::set_aside(tx, project, id, until).await
    }

    async fn judge(
        &mut self,
        tx: &mut Tx,
        crashing: &mut Self::Learned,
        now: DateTime<Utc>,
        spells: &[BlindSpell],
    ) -> StoreResult<Option<Transition>> {
        // A Beat may hang while it tries to reach its broker: then the fault is the broker's.
        let broker = deadbeat_store::celery::broker::of_app(tx, self.project_id, &self.name).await?;
        let mut cause = beat::silence(&self.state, self.hung_at, now);
        // A Beat that waits for the result backend reports that. The result backend's incident then covers its
        // silence.
        if cause == Cause::BeatStalled
            && report::is_troubled(
                deadbeat_store::celery::result_backend::of_beat(tx, self.project_id, self.id)
                    .await?
                    .as_ref(),
            )
        {
            switch::hold(&mut self.state, now + HELD);
        }
        if cause == Cause::BeatDown {
            let crashes = incarnation::crashes_of(tx, self, now, spells).await?;
            cause = crash_loop::silence(cause, crashes.len());
            crashing.insert(self.id, crashes);
        }
        if let Some(broker) = broker {
            // Only while a process samples the broker: without samples nothing would ever report that the broker is
            // back.
            let is_away = broker.state.trouble == Some(Cause::BrokerDown)
                && broker.sampled_at.is_some_and(|at| now - at < UNSAMPLED_FOR)
                && self.state.last_seen_at.is_none_or(|at| now - at < LONGEST_HOLD);
            if is_away || (cause == Cause::BeatStalled && is_sample_awaited(self, &broker, now)) {
                switch::hold(&mut self.state, now + HELD);
            }
        }
        Ok(beat::on_silence(&mut self.state, cause, now, spells))
    }

    async fn update(tx: &mut Tx, judged: &[Self], _: DateTime<Utc>, _: &[BlindSpell]) -> StoreResult<()> {
        deadbeat_store::celery::beat::update(tx, judged, true).await
    }

    async fn settle(
        _: &mut Tx,
        _: &[(Self, Option<Transition>)],
        _: &[SubjectKey],
        _: &Self::Learned,
        _: DateTime<Utc>,
    ) -> StoreResult<()> {
        Ok(())
    }

    fn changed<'a>(&'a self, transition: &Transition, crashing: &'a Self::Learned) -> Changed<'a> {
        match transition.trigger {
            Trigger::Trouble(Cause::BeatCrashLoop) => {
                Changed::Crashing(self, crashing.get(&self.id).map_or(&[], Vec::as_slice))
            }
            _ => Changed::Beat(self),
        }
    }
}
