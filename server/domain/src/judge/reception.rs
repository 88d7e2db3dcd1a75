//! Computes up to which instant silence may be judged: the stamps of all processes that receive signals limit it
//! (ADR 025).

use chrono::{DateTime, TimeDelta, Utc};

use crate::judge::blind_spell::{BLIND_AFTER, is_blind};

/// The stamps of the processes that receive signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reception {
    /// The newest stamp of any process. None: no process ever listened.
    pub last_stamp: Option<DateTime<Utc>>,
    /// Number of signals in the spools of running processes.
    pub spooled: i64,
    /// The oldest of the newest stamps of those processes that others wait for. None: no process is waited for.
    pub vouched_until: Option<DateTime<Utc>>,
    /// Number of processes that stopped writing stamps without signing off, and that others wait for.
    pub lost: i64,
    /// When others stop waiting for the last of these.
    pub waits_until: Option<DateTime<Utc>>,
}

/// How long after a deadline it is judged. A signal that arrived in time may still be on its way through the writer,
/// and must win.
pub const SETTLING: TimeDelta = TimeDelta::milliseconds(250);

/// How much the clocks of two machines may differ when one machine judges signals that the other one writes.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::milliseconds(250);

/// The most that judgement may lag behind the clock, minus [`SETTLING`]. A sweep takes the instant that it judges as
/// the present. If the lag were larger, a signal that arrives now would seem to come from the future, and be clamped
/// ([`crate::judge::blind_spell::is_to_come`]). Processes write a stamp each second, so one late stamp does not stop
/// judgement.
const LONGEST_LAG: TimeDelta = TimeDelta::milliseconds(
    BLIND_AFTER.num_milliseconds() - SETTLING.num_milliseconds() - CLOCKS_DIFFER.num_milliseconds(),
);

/// Why silence currently proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// No process receives signals.
    NobodyListens,
    /// Signals were received, but are not written yet.
    Spooled,
    /// A process that may hold signals stopped writing stamps without signing off.
    LostListener,
}

impl Hold {
    /// As written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NobodyListens => "nobody_listens",
            Self::Spooled => "spooled_pings",
            Self::LostListener => "lost_listener",
        }
    }
}

impl Reception {
    /// Why silence currently proves nothing. None: silence may be judged.
    #[must_use]
    pub fn hold(&self, now: DateTime<Utc>) -> Option<Hold> {
        if is_blind(self.last_stamp, now) {
            Some(Hold::NobodyListens)
        } else if self.spooled > 0 {
            Some(Hold::Spooled)
        } else if self.lost > 0 {
            Some(Hold::LostListener)
        } else {
            None
        }
    }

    /// Up to when silence may be judged. None: not at all.
    ///
    /// A signal that a process received after its newest stamp may still be in its spool, even before that process
    /// counts as lost.
    #[must_use]
    pub fn judged_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let confirmed = self.vouched_until.map_or(now, |confirmed| confirmed.min(now));
        Some(confirmed).filter(|_| self.hold(now).is_none() && now - confirmed <= LONGEST_LAG)
    }
}

/// The time before which the newest stamp of a lost process lies. Only processes that others wait for can be lost.
#[must_use]
pub fn lost_before(now: DateTime<Utc>) -> DateTime<Utc> {
    now - BLIND_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::blind_spell::is_to_come;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[test]
    fn silence_is_judged_up_to_what_every_awaited_process_has_confirmed() {
        let all_is_well = Reception {
            last_stamp: Some(at(100)),
            vouched_until: Some(at(99)),
            ..Reception::default()
        };
        let cases = [
            (
                "no process ever listened",
                Reception::default(),
                None,
                Some(at(100)),
            ),
            ("all is well", all_is_well, None, Some(at(99))),
            (
                "no process is waited for",
                Reception {
                    vouched_until: None,
                    ..all_is_well
                },
                None,
                Some(at(100)),
            ),
            (
                "a fast clock does not vouch for the future",
                Reception {
                    vouched_until: Some(at(101)),
                    ..all_is_well
                },
                None,
                Some(at(100)),
            ),
            (
                "one process is lost",
                Reception {
                    vouched_until: Some(at(90)),
                    lost: 1,
                    ..all_is_well
                },
                Some(Hold::LostListener),
                None,
            ),
            (
                "one process may soon be lost",
                Reception {
                    vouched_until: Some(at(97)),
                    ..all_is_well
                },
                None,
                None,
            ),
            (
                "one process replays its spool",
                Reception {
                    spooled: 1,
                    ..all_is_well
                },
                Some(Hold::Spooled),
                None,
            ),
            (
                "no process listens",
                Reception {
                    last_stamp: Some(at(97)),
                    spooled: 1,
                    lost: 1,
                    ..all_is_well
                },
                Some(Hold::NobodyListens),
                None,
            ),
        ];
        for (case, reception, hold, judged_until) in cases {
            assert_eq!(reception.hold(at(100)), hold, "{case}");
            assert_eq!(reception.judged_until(at(100)), judged_until, "{case}");
        }
    }

    /// For any [`BLIND_AFTER`]: the clock is never so far ahead of judgement that a signal of now seems to come from
    /// the future. And a process whose stamps no longer count is lost half a second later.
    #[test]
    fn a_signal_of_now_is_never_one_of_times_to_come_where_judgement_is() {
        let now = at(100);
        for lag in (0..5_000).map(TimeDelta::milliseconds) {
            let confirmed = now - lag;
            let is_lost = confirmed < lost_before(now);
            let reception = Reception {
                last_stamp: Some(now),
                vouched_until: Some(confirmed),
                lost: i64::from(is_lost),
                ..Reception::default()
            };
            match reception.judged_until(now) {
                Some(judged) => {
                    assert_eq!(judged, confirmed);
                    assert!(
                        !is_to_come(now + CLOCKS_DIFFER, judged - SETTLING),
                        "{lag} behind"
                    );
                }
                None => assert!(
                    is_lost || is_blind(Some(confirmed), now + SETTLING + CLOCKS_DIFFER),
                    "{lag} behind"
                ),
            }
        }
    }
}
