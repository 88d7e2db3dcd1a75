//! Decides which of two signals came first when the spools of several processes are replayed one after the other
//! (ADR 024).

use chrono::{DateTime, TimeDelta, Utc};

use crate::judge::blind_spell::BLIND_AFTER;
use crate::monitor::MonitorState;
use crate::monitor::ping::Signal;

/// True if a signal was received before a known instant.
///
/// Replayed signals from a spool are compared exactly. A signal that is written at once is the newest one of its
/// process, but the clocks of hosts differ. So it counts as older only if it is older by more than [`BLIND_AFTER`].
#[must_use]
pub fn is_older(signal: &Signal, known: DateTime<Utc>) -> bool {
    if known <= signal.received_at {
        return false;
    }
    let forgiven = if signal.is_replayed {
        TimeDelta::zero()
    } else {
        BLIND_AFTER
    };
    known - signal.received_at > forgiven
}

/// True if the run that this start begins has already ended: an end without a run id was received after the start, but
/// was replayed before it.
///
/// Such an end closes the run without an id, or else the only open run. If the run's own end is known, `pairing`
/// decides instead.
pub(crate) fn has_ended(state: &MonitorState, start: &Signal) -> bool {
    let is_known = || state.runs.iter().any(|run| run.run_id == start.run_id);
    state.plain_end_at.is_some_and(|end| is_older(start, end))
        && (start.run_id.is_none() || (state.open_runs() == 0 && !is_known()))
}
