//! Decides anew about deliveries that wait, after what holds them has changed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::hold::{About, Hold, Release, release};
use deadbeat_domain::alert::recipients::{Channel, Withheld};
use deadbeat_domain::alert::routing::Traits;
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_store::alert::waiting::{self, Decided, Waiting};
use deadbeat_store::{StoreResult, Tx};

/// Deliveries that one statement reads. There are as many steps as a project has waiting deliveries: one for each open incident and channel
/// at most, and one reminder.
const STEP: i64 = 5_000;

/// Decides anew about the deliveries of a project that wait or are withheld: those to one channel, or all. Call it in the transaction that
/// changes what holds them, after [`deadbeat_store::people::project::lock_rules`]. Afterwards ring the outbox's bell.
///
/// # Errors
/// If the database is away.
pub(crate) async fn decide_anew(
    tx: &mut Tx,
    project: ProjectId,
    channel: Option<ChannelId>,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    let channels = deadbeat_store::alert::channel::for_alerts(tx, &[project]).await?;
    let channels: HashMap<ChannelId, &Channel> = channels
        .get(&project)
        .into_iter()
        .flatten()
        .map(|channel| (channel.id, channel))
        .collect();
    let holds: Vec<Hold> = Vec::new();
    let mut after = None;
    loop {
        let rows = waiting::lock(tx, project, channel, after, STEP).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = Some(last.id);
        let decided: Vec<_> = rows
            .iter()
            .filter_map(|row| Some((row.id, decide(row, channels.get(&row.channel_id)?, &holds, now))))
            .collect();
        waiting::decide(tx, project, &decided, now).await?;
    }
}

fn decide(row: &Waiting, channel: &Channel, holds: &[Hold], now: DateTime<Utc>) -> Decided {
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
        routing.hears(row.alert) && (row.alert != Alert::Opened || routing.matches(&about.traits));
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
