//! A switch that is nothing but a sign of life: a Beat, a worker. It says how often it is heard from, and silence trips it.

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
    /// new until it was first heard from.
    pub status: Status,
    /// How often it says that it lives.
    pub period_seconds: f64,
    /// Tolerated silence beyond that.
    pub grace_seconds: f64,
    /// When it was last heard from.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it is declared down.
    pub deadline_at: Option<DateTime<Utc>>,
    /// What is wrong with it although it is heard from: told when it has lasted.
    pub trouble: Option<Cause>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
}

impl Switch {
    /// The longest silence that is still fine.
    #[must_use]
    pub fn patience(&self) -> TimeDelta {
        span(self.period_seconds) + span(self.grace_seconds)
    }
}

/// It said that it lived at `seen_at`, and we heard it at `now`; and what is wrong with it all the same, for how long that must last to
/// be told.
///
/// What depends on it asks for the former (a Beat's monitors: only what was due by then has been sent); its own deadline counts from the
/// latter, so that a slow network is not taken for a slow Beat.
#[must_use]
pub fn on_alive(
    state: &mut Switch,
    trouble: Option<(Cause, TimeDelta)>,
    seen_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    // What was noted before the clock was stepped back would be the newest for as long.
    let noted = state.last_seen_at.filter(|noted| !is_to_come(*noted, now));
    state.last_seen_at = noted.max(Some(seen_at));
    state.deadline_at = Some(now + state.patience());
    on_trouble(state, trouble, now)
}

/// It was looked at, by whomever, and this is what is wrong with it.
#[must_use]
pub fn on_trouble(
    state: &mut Switch,
    trouble: Option<(Cause, TimeDelta)>,
    now: DateTime<Utc>,
) -> Option<Transition> {
    // Of a Down that came by silence, being heard is the end.
    let is_told = state.status == Status::Down && state.trouble.is_some();
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
            if is_told && is_another {
                // What was told is over; what has come in its place is told in its own time.
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

/// It is deleted: if it is down, that is over. None: it is not.
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

/// Its silence is excused for now: it is looked at again then.
pub fn hold(state: &mut Switch, until: DateTime<Utc>) {
    state.deadline_at = state.deadline_at.max(Some(until));
}

/// Judges a switch whose `check_after` has passed; `cause` is what its silence means. None: not overdue.
#[must_use]
pub fn on_silence(
    state: &mut Switch,
    cause: Cause,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Option<Transition> {
    let is_told = state.status == Status::Down && state.trouble.is_some();
    if state.status == Status::Down && !is_told {
        state.deadline_at = None;
    }
    let patience = state.patience();
    state.deadline_at = state
        .deadline_at
        // The clock was stepped back since it was heard: it would not be missed until the old time has come again.
        .map(|deadline| {
            if is_to_come(deadline, now + patience) {
                now + patience
            } else {
                deadline
            }
        })
        .map(|deadline| fair_deadline(deadline, deadline - patience, patience.max(SDK_RETURN), spells));
    state.deadline_at.filter(|deadline| *deadline <= now)?;
    if is_told {
        // It was heard from and in trouble, and is silent now: that is another matter, told with the next look.
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
