//! A switch that only needs regular reports: a Beat or a worker. Each report sets the deadline of the next one. Silence
//! past the deadline trips the switch.

use chrono::{DateTime, TimeDelta, Utc};

use crate::change::{Transition, Trigger};
use crate::incident::cause::Cause;
use crate::judge::blind_spell::{BlindSpell, SDK_RETURN, fair_deadline, is_to_come};
use crate::monitor::status::Status;
use crate::time::span;

#[cfg(test)]
mod tests;

/// A switch as the rules see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Switch {
    /// `new` until its first report.
    pub status: Status,
    /// How often it reports, in seconds.
    pub period_seconds: f64,
    /// Tolerated silence beyond the period, in seconds.
    pub grace_seconds: f64,
    /// When its last report was made.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it is declared down.
    pub deadline_at: Option<DateTime<Utc>>,
    /// The fault of a subject that still reports. The fault opens an incident once it has lasted long enough.
    pub trouble: Option<Cause>,
    /// Since when the fault lasts.
    pub since: Option<DateTime<Utc>>,
}

impl Switch {
    /// The longest silence that is tolerated.
    #[must_use]
    pub fn patience(&self) -> TimeDelta {
        span(self.period_seconds) + span(self.grace_seconds)
    }
}

/// Applies a report that was made at `seen_at` and arrived at `now`. `trouble`: the fault that the report shows, and
/// for how long the fault must last before an incident opens.
///
/// The monitors of a Beat need `seen_at`: only slots before it have been sent. The switch's own deadline counts from
/// `now`, so that a slow network does not look like a slow Beat.
#[must_use]
pub fn on_heartbeat(
    state: &mut Switch,
    trouble: Option<(Cause, TimeDelta)>,
    seen_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    // After the clock steps back, ignore a stored future time. Otherwise it would count as the newest until the clock
    // passes it.
    let noted = state.last_seen_at.filter(|noted| !is_to_come(*noted, now));
    state.last_seen_at = noted.max(Some(seen_at));
    state.deadline_at = Some(now + state.patience());
    on_trouble(state, trouble, now)
}

/// Applies an observation of the subject by any process: its fault, or None.
#[must_use]
pub fn on_trouble(
    state: &mut Switch,
    trouble: Option<(Cause, TimeDelta)>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    // If a subject is down because of silence, any report brings it up.
    let is_alerted = state.status == Status::Down && state.trouble.is_some();
    let is_another = trouble.is_some_and(|(cause, _)| state.trouble != Some(cause));
    let (to, trigger) = match trouble {
        None => {
            state.trouble = None;
            state.since = None;
            (Status::Up, Trigger::Report)
        }
        Some((cause, patience)) => {
            if is_another || state.since.is_none() {
                state.trouble = Some(cause);
                state.since = Some(now);
            }
            if is_alerted && is_another {
                // The reported fault is over. A new fault must also last for its own time before an incident opens.
                (Status::New, Trigger::Restored)
            } else if state.since.is_some_and(|since| now - since >= patience) {
                (Status::Down, Trigger::Trouble(cause))
            } else {
                (Status::Up, Trigger::Report)
            }
        }
    };
    if state.status == to {
        return None;
    }
    let transition = Transition {
        from: state.status,
        to,
        trigger,
        at: now,
    };
    state.status = to;
    Some(transition)
}

/// The subject is deleted. Its incident ends if it is down. None: it is not down.
#[must_use]
pub fn on_delete(state: &mut Switch, now: DateTime<Utc>) -> Option<Transition> {
    if state.status != Status::Down {
        return None;
    }
    state.status = Status::Paused;
    Some(Transition {
        from: Status::Down,
        to: Status::Paused,
        trigger: Trigger::Delete,
        at: now,
    })
}

/// Tolerates the subject's silence for now. The evaluator judges it again at `until`.
pub fn hold(state: &mut Switch, until: DateTime<Utc>) {
    state.deadline_at = state.deadline_at.max(Some(until));
}

/// Judges a switch whose `check_after` has passed. `cause`: the cause of its silence. None: it is not overdue.
#[must_use]
pub fn on_silence(
    state: &mut Switch,
    cause: Cause,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Option<Transition> {
    let is_alerted = state.status == Status::Down && state.trouble.is_some();
    if state.status == Status::Down && !is_alerted {
        state.deadline_at = None;
    }
    let patience = state.patience();
    state.deadline_at = state
        .deadline_at
        // After the clock steps back, clamp a future deadline. Otherwise no silence would be noticed until the clock
        // reaches the old time again.
        .map(|deadline| {
            if is_to_come(deadline, now + patience) {
                now + patience
            } else {
                deadline
            }
        })
        .map(|deadline| fair_deadline(deadline, deadline - patience, patience.max(SDK_RETURN), spells));
    state.deadline_at.filter(|deadline| *deadline <= now)?;
    if is_alerted {
        // The subject had a fault while it reported, and is now silent. Silence is another fault: the next sweep opens
        // its incident.
        state.status = Status::New;
        state.trouble = None;
        state.since = None;
        state.deadline_at = Some(now);
        return Some(Transition {
            from: Status::Down,
            to: Status::New,
            trigger: Trigger::Restored,
            at: now,
        });
    }
    let transition = Transition {
        from: state.status,
        to: Status::Down,
        trigger: Trigger::Trouble(cause),
        at: now,
    };
    state.status = Status::Down;
    state.deadline_at = None;
    state.trouble = None;
    state.since = None;
    Some(transition)
}
