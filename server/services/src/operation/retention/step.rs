//! One bounded step of each kind, and the place where the next step continues.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{MonitorId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_store::operation::retention::{self as store, DayTable, DeliveryCutoffs, PingRange, Walked};
use deadbeat_store::{StoreResult, Tx};
use uuid::Uuid;

use super::{Kind, RetentionSettings};
use crate::judge::excuse::LONGEST_EXCUSE;

/// The most rows that one step removes or reads.
pub(super) const BATCH: i64 = 5_000;
/// The most monitors that one step reads.
const MONITORS: i64 = 1_000;

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stepped {
    pub(super) removed: u64,
    /// True if nothing is left to do in this pass.
    pub(super) is_over: bool,
}

impl Stepped {
    /// Makes the result of a step that removes rows by an index. A step that found fewer rows than its limit is the last one.
    fn found(removed: u64) -> Self {
        Self {
            removed,
            is_over: removed < BATCH.unsigned_abs(),
        }
    }
}

/// The places where the steps continue. They last as long as the process: the next pass continues an interrupted walk.
#[derive(Debug, Default)]
pub(super) struct Places {
    excess_monitor: Option<MonitorId>,
    excess: Vec<PingRange>,
    run: Uuid,
    trace_project: Option<ProjectId>,
    attempt: (Uuid, i32),
    delivery: Uuid,
    member: (Uuid, Uuid),
    handle: (Uuid, Uuid),
    incident: Uuid,
    transition: (String, Uuid, Uuid),
    change: Uuid,
}

/// Advances a walk. At its end, returns it to the start.
fn walked<P: Default>(place: &mut P, walked: Walked<P>) -> Stepped {
    let is_over = walked.last.is_none();
    *place = walked.last.unwrap_or_default();
    Stepped {
        removed: walked.removed,
        is_over,
    }
}

/// Does one step.
pub(super) async fn step(
    tx: &mut Tx,
    kind: Kind,
    settings: &RetentionSettings,
    places: &mut Places,
    now: DateTime<Utc>,
) -> StoreResult<Stepped> {
    let before = |days: u16| now - TimeDelta::days(i64::from(days));
    // A body never outlives its ping.
    let body_days = settings.ping_body_days.min(settings.ping_days);
    let cutoffs = DeliveryCutoffs {
        attempts: before(settings.attempt_days),
        deliveries: before(settings.delivery_days),
        incidents: before(settings.incident_days),
    };
    let stepped = match kind {
        Kind::Days => {
            let bodies = before(body_days).date_naive();
            let is_dropped = store::drop_oldest_day(tx, DayTable::PingBody, bodies).await? || {
                let pings = before(settings.ping_days).date_naive();
                store::drop_oldest_day(tx, DayTable::Ping, pings).await?
            };
            Stepped {
                removed: u64::from(is_dropped),
                is_over: !is_dropped,
            }
        }
        Kind::StrayBodies => {
            Stepped::found(store::trim_default(tx, DayTable::PingBody, before(body_days), BATCH).await?)
        }
        Kind::StrayPings => {
            Stepped::found(store::trim_default(tx, DayTable::Ping, before(settings.ping_days), BATCH).await?)
        }
        Kind::Deleted => {
            let gone = store::purge_one(tx, BATCH).await?;
            Stepped {
                removed: gone.unwrap_or(0),
                is_over: gone.is_none(),
            }
        }
        Kind::ExcessPings => excess(tx, i64::from(settings.pings_per_monitor), places).await?,
        Kind::Runs => {
            let step = store::runs(tx, places.run, before(settings.run_days), BATCH).await?;
            walked(&mut places.run, step)
        }
        Kind::Traces => traces(tx, before(settings.trace_days), places).await?,
        Kind::Attempts => {
            let step = store::attempts(tx, places.attempt, cutoffs, BATCH).await?;
            walked(&mut places.attempt, step)
        }
        Kind::Deliveries => {
            let step = store::deliveries(tx, places.delivery, cutoffs, BATCH).await?;
            walked(&mut places.delivery, step)
        }
        Kind::Members => {
            let step = store::members(tx, places.member, cutoffs.incidents, BATCH).await?;
            walked(&mut places.member, step)
        }
        Kind::Handles => {
            let step = store::handles(tx, places.handle, cutoffs.incidents, BATCH).await?;
            walked(&mut places.handle, step)
        }
        Kind::Incidents => {
            let step = store::incidents(tx, places.incident, cutoffs.incidents, BATCH).await?;
            walked(&mut places.incident, step)
        }
        Kind::Transitions => {
            let old = before(settings.transition_days);
            let step = store::transitions(tx, &places.transition, old, BATCH).await?;
            walked(&mut places.transition, step)
        }
        Kind::Changes => {
            let (old, keep) = (before(settings.change_days), limits::PROJECT_CHANGES);
            let step = store::changes(tx, places.change, old, keep, BATCH).await?;
            walked(&mut places.change, step)
        }
        Kind::AuditEntries => {
            Stepped::found(store::audit_entries(tx, before(settings.audit_days), BATCH).await?)
        }
        Kind::BlindSpells => {
            // Keep a blind spell that may still excuse a late report, whatever the setting says.
            let old = before(settings.blind_spell_days).min(now - LONGEST_EXCUSE);
            Stepped::found(store::old_spells(tx, old, BATCH).await?)
        }
        Kind::Sessions => {
            let invitations = deadbeat_store::people::invitation::forget_ended(tx, now, BATCH).await?;
            Stepped::found(invitations.max(store::expired_sessions(tx, now, BATCH).await?))
        }
        Kind::Quotas => Stepped::found(deadbeat_store::people::quota::remove_ended(tx, now, BATCH).await?),
        Kind::RevokedKeys => {
            let old = before(settings.revoked_key_days);
            Stepped::found(deadbeat_store::people::api_key::forget_ended(tx, old, BATCH).await?)
        }
        Kind::Workers => Stepped::found(
            deadbeat_store::celery::worker::forget(tx, before(settings.worker_days), BATCH).await?,
        ),
        Kind::Queues => Stepped::found(
            deadbeat_store::celery::queue::forget(tx, before(settings.queue_days), BATCH).await?,
        ),
        Kind::Brokers => Stepped::found(
            deadbeat_store::celery::broker::forget(tx, before(settings.broker_days), BATCH).await?,
        ),
    };
    Ok(stepped)
}

/// Reads monitors to find those with too many pings, or removes the pings that the last such step found.
async fn excess(tx: &mut Tx, keep: i64, places: &mut Places) -> StoreResult<Stepped> {
    if places.excess.is_empty() {
        let found = store::excess_pings(tx, places.excess_monitor, keep, MONITORS).await?;
        let is_over = found.last.is_none() && found.ranges.is_empty();
        places.excess_monitor = found.last;
        places.excess = found.ranges;
        return Ok(Stepped { removed: 0, is_over });
    }
    let (now, later) = share(&places.excess, BATCH);
    let removed = store::trim_ranges(tx, &now).await?;
    places.excess = later;
    Ok(Stepped {
        removed,
        // The step that found these pings was the last one.
        is_over: places.excess.is_empty() && places.excess_monitor.is_none(),
    })
}

/// Splits ranges into those of the next step, with at most `limit` pings, and the rest.
fn share(ranges: &[PingRange], limit: i64) -> (Vec<PingRange>, Vec<PingRange>) {
    let (mut now, mut later) = (Vec::new(), Vec::new());
    let mut room = limit;
    for range in ranges {
        let last = range.to.min(range.from.saturating_add(room).saturating_sub(1));
        if range.from <= last {
            now.push(PingRange { to: last, ..*range });
            room -= last - range.from + 1;
        }
        if last < range.to {
            later.push(PingRange {
                from: range.from.max(last + 1),
                ..*range
            });
        }
    }
    (now, later)
}

/// Goes project by project, in the order of the index on traces.
async fn traces(tx: &mut Tx, before: DateTime<Utc>, places: &mut Places) -> StoreResult<Stepped> {
    let project = match places.trace_project {
        Some(project) => project,
        None => match deadbeat_store::celery::trace::next_project(tx, None).await? {
            Some(project) => project,
            None => {
                return Ok(Stepped {
                    removed: 0,
                    is_over: true,
                });
            }
        },
    };
    let removed = deadbeat_store::celery::trace::trim(tx, project, before, BATCH).await?;
    places.trace_project = if removed < BATCH.unsigned_abs() {
        deadbeat_store::celery::trace::next_project(tx, Some(project)).await?
    } else {
        Some(project)
    };
    Ok(Stepped {
        removed,
        is_over: places.trace_project.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(monitor: u128, from: i64, to: i64) -> PingRange {
        PingRange {
            monitor: (ProjectId(Uuid::nil()), MonitorId(Uuid::from_u128(monitor))),
            from,
            to,
        }
    }

    #[test]
    fn a_step_takes_its_share_of_the_ranges_and_leaves_the_rest() {
        let ranges = [range(1, 1, 3), range(2, 5, 20), range(3, 1, 1)];

        let (now, later) = share(&ranges, 10);

        assert_eq!(now, [range(1, 1, 3), range(2, 5, 11)]);
        assert_eq!(later, [range(2, 12, 20), range(3, 1, 1)]);
        let (now, later) = share(&later, 10);
        assert_eq!(now, [range(2, 12, 20), range(3, 1, 1)]);
        assert!(later.is_empty());
    }
}
