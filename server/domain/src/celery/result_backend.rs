//! The result backend of an application: nobody looks at it but those who use it, and they say when it does not answer.

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::{BrokerId, WorkerId};

/// A backend that does not answer for this long is told: a failover takes seconds.
pub const PATIENCE: TimeDelta = TimeDelta::seconds(20);
/// Where nobody has looked at the broker since, the trouble is told after this: both may be away with the network between.
pub const LONGEST_UNTOLD: TimeDelta = TimeDelta::seconds(60);
/// What was seen longer ago than this may be over: whoever is in trouble tries again every 4 s.
const YOUNG: TimeDelta = TimeDelta::seconds(15);
/// A look at the broker that began with the trouble may have been lucky.
const AFTER: TimeDelta = TimeDelta::seconds(2);

/// Trouble with it, as one process or several of one application see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Since when nothing was answered.
    pub since: DateTime<Utc>,
    /// When that was last so.
    pub last_at: DateTime<Utc>,
}

/// How the broker is, whose trouble explains the backend's: both may be one server, or behind one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerSeen {
    /// It is in trouble.
    Troubled,
    /// It answered then; None: nobody has looked.
    Well(Option<DateTime<Utc>>),
}

/// Whether trouble is told.
#[must_use]
pub fn is_told(trouble: &Trouble, broker: BrokerSeen, now: DateTime<Utc>) -> bool {
    let BrokerSeen::Well(seen_at) = broker else {
        return false;
    };
    let lasts = now - trouble.since;
    let is_seen = seen_at.is_some_and(|at| at >= trouble.since + AFTER);
    now - trouble.last_at < YOUNG && (lasts >= LONGEST_UNTOLD || (lasts >= PATIENCE && is_seen))
}

/// A result backend with which somebody is in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendView {
    /// The broker of the same application.
    pub id: BrokerId,
    /// Since when.
    pub since: DateTime<Utc>,
    /// It has an open incident.
    pub is_told: bool,
    /// Beat cannot send because of it.
    pub holds_up_beat: bool,
    /// Workers of which a process waits for it.
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
    fn it_is_told_when_it_has_lasted_and_the_broker_was_seen_well_since() {
        let well = |seconds: f64| BrokerSeen::Well(Some(at(seconds)));
        for (since, last, broker, now, expected) in [
            (0.0, 20.0, well(10.0), 20.0, true),
            (0.0, 19.0, well(10.0), 19.9, false),
            // The only look was before, or while it began.
            (0.0, 20.0, well(1.9), 20.0, false),
            (0.0, 20.0, BrokerSeen::Well(None), 59.9, false),
            (0.0, 60.0, BrokerSeen::Well(None), 60.0, true),
            (0.0, 60.0, BrokerSeen::Troubled, 600.0, false),
            // It failed once, and nobody has tried since.
            (0.0, 5.0, well(10.0), 20.0, false),
            (0.0, 5.1, well(10.0), 20.0, true),
            // A slow one: each answer begins it anew.
            (58.0, 60.0, well(50.0), 60.0, false),
        ] {
            assert_eq!(
                is_told(&trouble(since, last), broker, at(now)),
                expected,
                "{since} {last} {broker:?} {now}"
            );
        }
    }
}
