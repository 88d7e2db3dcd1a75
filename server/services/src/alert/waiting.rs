//! Decides again when held deliveries go out, after a rule, snooze, mute or window has changed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::hold::{About, Hold, Release, release};
use deadbeat_domain::alert::recipients::{Channel, Withheld};
use deadbeat_domain::alert::routing::Traits;
use deadbeat_domain::ids::{ChannelId, MonitorId, MonitorKey, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_store::alert::waiting::{self, Decided, Only, WaitingDelivery};
use deadbeat_store::{StoreResult, Tx};

use crate::alert::hold;

/// Number of deliveries that one statement reads. A project has few waiting deliveries: for each open incident and
/// channel, one alert and one reminder at most.
const STEP: i64 = 5_000;

/// Decides again about a project's deliveries that wait or are withheld: those that `only` selects. Call this in the
/// transaction that changes a rule, snooze, mute or window, after [`deadbeat_store::people::project::lock_rules`].
/// After the commit, wake the outbox.
///
/// # Errors
/// If the database is away.
pub(crate) async fn decide_anew(
    tx: &mut Tx,
    project: ProjectId,
    only: Only,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let channels = deadbeat_store::alert::channel::for_alerts(tx, &[project]).await?;
    let channels: HashMap<ChannelId, &Channel> = channels
        .get(&project)
        .into_iter()
        .flatten()
        .map(|channel| (channel.id, channel))
        .collect();
    let mut after = None;
    loop {
        let rows = waiting::lock(tx, project, only, after, STEP).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = Some(last.id);
        let monitors: Vec<MonitorKey> = rows
            .iter()
            .filter(|row| row.subject_kind == SubjectKind::Monitor)
            .map(|row| (project, MonitorId(row.subject_id)))
            .collect();
        let holds = hold::holds(tx, &[project], &monitors, now).await?;
        let holds = holds.get(&project).map_or(&[][..], Vec::as_slice);
        let decided: Vec<_> = rows
            .iter()
            .filter_map(|row| Some((row.id, decide(row, channels.get(&row.channel_id)?, holds, now))))
            .collect();
        waiting::decide(tx, project, &decided, now).await?;
    }
}

fn decide(row: &WaitingDelivery, channel: &Channel, holds: &[Hold], now: DateTime<Utc>) -> Decided {
    let about = About {
        traits: Traits {
            kind: row.subject_kind,
            cause: row.cause,
            severity: row.severity,
            tags: &row.tags,
        },
        subject: row.subject_id,
        opened_at: row.opened_at,
    };
    let routing = &channel.routing;
    if channel.is_disabled {
        return Decided::Withheld("channel_disabled");
    }
    if !channel.is_confirmed {
        return Decided::Withheld(Withheld::NotConfirmed.as_str());
    }
    let is_wanted =
        routing.takes(row.alert) && (row.alert != Alert::Opened || routing.matches(&about.traits));
    if !is_wanted {
        return Decided::Withheld(Withheld::Rules.as_str());
    }
    let holds: Vec<&Hold> = holds.iter().filter(|hold| hold.covers(&about)).collect();
    match release(row.alert, &about, routing, &holds, now) {
        Release::Now => Decided::At(now),
        Release::At(at) => Decided::At(at),
        Release::Never => Decided::Withheld(Withheld::Muted.as_str()),
    }
}
