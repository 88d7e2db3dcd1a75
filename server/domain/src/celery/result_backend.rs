//! The result backend of an application. No process samples it. The processes that call it report when it does not
//! answer.

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::{BrokerId, WorkerId};

/// How long a backend must not answer before an incident opens. A failover takes seconds.
pub const PATIENCE: TimeDelta = TimeDelta::seconds(20);
/// The same, if the broker was not sampled meanwhile: the network to both may be down.
pub const LONGEST_WITHOUT_ALERT: TimeDelta = TimeDelta::seconds(60);
/// Reports older than this may be out of date. A process with trouble tries again every 4 s.
const YOUNG: TimeDelta = TimeDelta::seconds(15);
/// A sample of the broker that was taken this soon after the start of the trouble may have succeeded by chance.
const AFTER: TimeDelta = TimeDelta::seconds(2);

/// Trouble with the backend that one or several processes of one application report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Since when no call has been answered.
    pub since: DateTime<Utc>,
    /// When the last unanswered call was made.
    pub last_at: DateTime<Utc>,
}

/// The state of the broker. A fault of the broker explains that of the backend: both may be one server, or behind one
/// network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerState {
    /// It has a fault.
    Troubled,
    /// It answered at that time. None: no process sampled it.
    Well(Option<DateTime<Utc>>),
}

/// True if the trouble opens an incident.
#[must_use]
pub fn is_alerted(trouble: &Trouble, broker: BrokerState, now: DateTime<Utc>) -> bool {
    let BrokerState::Well(seen_at) = broker else {
        return false;
    };
    let lasts = now - trouble.since;
    let is_seen = seen_at.is_some_and(|at| at >= trouble.since + AFTER);
    now - trouble.last_at < YOUNG && (lasts >= LONGEST_WITHOUT_ALERT || (lasts >= PATIENCE && is_seen))
}

/// A result backend with which a process reports trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendView {
    /// The id of the same application's broker.
    pub id: BrokerId,
    /// Since when the trouble lasts.
    pub since: DateTime<Utc>,
    /// It has an open incident.
    pub is_alerted: bool,
    /// Beat cannot send because of it.
    pub holds_up_beat: bool,
    /// Workers with a process that waits for it.
    pub holds_up: Vec<WorkerId>,
    /// Workers whose calls wait or fail.
    pub troubled: Vec<WorkerId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::transition::tests::at;

    fn trouble(since: f64, last_at: f64) -> Trouble {
        Trouble {
            since: at(since),
            last_at: at(last_at),
        }
    }

    #[test]
    fn it_is_reported_when_it_has_lasted_and_the_broker_was_seen_well_since() {
        let well = |seconds: f64| BrokerState::Well(Some(at(seconds)));
        for (since, last, broker, now, expected) in [
            (0.0, 20.0, well(10.0), 20.0, true),
            (0.0, 19.0, well(10.0), 19.9, false),
            // The only sample was taken before the trouble, or while it began.
            (0.0, 20.0, well(1.9), 20.0, false),
            (0.0, 20.0, BrokerState::Well(None), 59.9, false),
            (0.0, 60.0, BrokerState::Well(None), 60.0, true),
            (0.0, 60.0, BrokerState::Troubled, 600.0, false),
            // One call failed, and no process has tried since.
            (0.0, 5.0, well(10.0), 20.0, false),
            (0.0, 5.1, well(10.0), 20.0, true),
            // A slow backend: each answer restarts the time of the trouble.
            (58.0, 60.0, well(50.0), 60.0, false),
        ] {
            assert_eq!(
                is_alerted(&trouble(since, last), broker, at(now)),
                expected,
                "{since} {last} {broker:?} {now}"
            );
        }
    }
}
