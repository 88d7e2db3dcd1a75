//! The sweep of overdue switches: Beats and workers, which report by themselves.
//!
//! The sweep has the same steps for both kinds: claim, judge, find lost hosts, write, and record the changes. A
//! [`Kind`] holds what differs.

use std::future::Future;

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::change::Transition;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::{SubjectKey, SubjectKind};
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::{StoreResult, Tx, Unreadable, with_sources};
use uuid::Uuid;

use super::{ASIDE, BATCH, Batched, Evaluator, Swept, downs};
use crate::celery::host::{self, Fallen};
use crate::incident;
use crate::incident::changed::{Changed, Occurrence, OccurrenceKind};

/// A kind of switch.
pub(super) trait Kind: Sized + Send + Sync {
    /// The kind of subject.
    const SUBJECT: SubjectKind;
    /// Facts that judging a batch finds and later steps need.
    type Learned: Default + Send + Sync;

    /// Returns the id, the project and the state of the switch.
    fn parts(&mut self) -> (Uuid, ProjectId, &mut Switch);

    /// Claims overdue switches, and skips those that another transaction has locked.
    fn claim(
        tx: &mut Tx,
        now: DateTime<Utc>,
        limit: i64,
    ) -> impl Future<Output = StoreResult<Vec<Result<Self, Unreadable>>>> + Send;

    /// Puts a switch that cannot be read aside until `until`.
    fn set_aside(
        tx: &mut Tx,
        project: ProjectId,
        id: Uuid,
        until: DateTime<Utc>,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Judges the switch. Returns its change of status, if there is one.
    fn judge(
        &mut self,
        tx: &mut Tx,
        learned: &mut Self::Learned,
        now: DateTime<Utc>,
        spells: &[BlindSpell],
    ) -> impl Future<Output = StoreResult<Option<Transition>>> + Send;

    /// Writes what the verdicts changed.
    fn update(
        tx: &mut Tx,
        judged: &[Self],
        now: DateTime<Utc>,
        spells: &[BlindSpell],
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Applies the verdicts to monitors and runs. `over`: the switches that are not down any more.
    fn settle(
        tx: &mut Tx,
        judged: &[(Self, Option<Transition>)],
        over: &[SubjectKey],
        learned: &Self::Learned,
        now: DateTime<Utc>,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Describes the change of the switch for its incident.
    fn changed<'a>(&'a self, transition: &Transition, learned: &'a Self::Learned) -> Changed<'a>;
}

impl Evaluator {
    /// Judges one batch of switches of a kind.
    pub(super) async fn sweep_switches<K: Kind>(&self, now: DateTime<Utc>) -> StoreResult<Batched> {
        let mut swept = Swept::default();
        let mut tx = self.store.begin().await?;
        let mut claimed: Vec<K> = Vec::new();
        for row in K::claim(&mut tx, now, BATCH).await? {
            swept.claimed += 1;
            match row {
                Ok(one) => claimed.push(one),
                Err(unreadable) => {
                    tracing::error!(
                        kind = K::SUBJECT.as_str(), id = %unreadable.id, error = %with_sources(&unreadable.error),
                        "a subject cannot be read; put aside"
                    );
                    self.selfwatch.put_aside();
                    K::set_aside(&mut tx, unreadable.project_id, unreadable.id, now + ASIDE).await?;
                }
            }
        }
        let is_full = swept.claimed as i64 == BATCH;
        if swept.claimed == 0 {
            return Ok(Batched { swept, is_full });
        }
        let spells = self.spells(&mut tx, now).await?;
        let mut learned = K::Learned::default();
        let mut transitions = Vec::with_capacity(claimed.len());
        let before: Vec<Switch> = claimed.iter_mut().map(|one| one.parts().2.clone()).collect();
        for one in &mut claimed {
            transitions.push(one.judge(&mut tx, &mut learned, now, &spells).await?);
        }
        let fallen = claimed.iter_mut().zip(before).zip(&mut transitions);
        let fallen = fallen.filter_map(|((one, before), transition)| {
            let (id, project, state) = one.parts();
            Fallen::of(id, project, state, before, transition)
        });
        let lost_hosts = host::judge_fallen(&mut tx, fallen.collect(), now, &spells).await?;
        K::update(&mut tx, &claimed, now, &spells).await?;
        let mut judged: Vec<(K, Option<Transition>)> = claimed.into_iter().zip(transitions).collect();
        let over: Vec<SubjectKey> = judged
            .iter_mut()
            .filter(|(_, transition)| transition.is_some_and(|transition| transition.to != Status::Down))
            .map(|(one, _)| {
                let (id, project, _) = one.parts();
                (project, K::SUBJECT, id)
            })
            .collect();
        K::settle(&mut tx, &judged, &over, &learned, now).await?;
        incident::rearm_members(&mut tx, &self.site, &over, now).await?;
        let occurrences: Vec<Occurrence<'_>> = judged
            .iter()
            .filter_map(|(one, transition)| {
                let transition = (*transition)?;
                Some(Occurrence {
                    changed: one.changed(&transition, &learned),
                    what: OccurrenceKind::Transition(transition),
                })
            })
            .collect();
        swept.down += downs(&occurrences);
        incident::record(&mut tx, &self.site, &occurrences).await?;
        host::open_incidents(&mut tx, &self.site, &lost_hosts, now).await?;
        tx.commit().await?;
        Ok(Batched { swept, is_full })
    }
}
