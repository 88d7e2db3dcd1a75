//! Up to which instant silence may be judged: only up to the stamps of all processes that receive signals (ADR 025).

use chrono::{DateTime, TimeDelta, Utc};

use crate::judge::blind_spell::{BLIND_AFTER, is_blind};

/// The stamps of the processes that receive signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hearing {
    /// The newest stamp of any process. None: no process ever listened.
    pub last_stamp: Option<DateTime<Utc>>,
    /// Number of signals in the spools of running processes.
    pub spooled: i64,
    /// Of the processes that others wait for: each one's newest stamp, and of these the oldest. None: nobody waits for
    /// any.
    pub vouched_until: Option<DateTime<Utc>>,
    /// Number of processes that fell silent without signing off, and that others wait for.
    pub lost: i64,
    /// Until when others wait for the last of these.
    pub waits_until: Option<DateTime<Utc>>,
}

/// A deadline is judged this long after it passed. A signal that came in time, and is still on its way through the
/// writer, then wins.
pub const SETTLING: TimeDelta = TimeDelta::milliseconds(250);

/// How much the clocks of two machines may differ, while one judges signals that the other one writes.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::milliseconds(250);

/// Judgement never lies further behind the clock than this plus [`SETTLING`]. A sweep takes the instant that it judges
/// as the present. A signal that came [`BLIND_AFTER`] later would seem to come from the future, and be clamped
/// ([`crate::judge::blind_spell::is_to_come`]). Processes stamp each second, so one late stamp does not stop judgement.
const LONGEST_LAG: TimeDelta = TimeDelta::milliseconds(
    BLIND_AFTER.num_milliseconds() - SETTLING.num_milliseconds() - CLOCKS_DIFFER.num_milliseconds(),
);

/// Why silence proves nothing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// No process receives signals.
    NobodyListens,
    /// Signals that were received are not written yet.
    Spooled,
    /// A process that may hold signals fell silent without signing off.
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

impl Hearing {
    /// Why silence proves nothing now. None: it may be judged.
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
    /// A signal that a process received after its newest stamp may lie in its spool, even before that process is known
    /// to be lost.
    #[must_use]
    pub fn judged_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let vouched = self.vouched_until.map_or(now, |vouched| vouched.min(now));
        Some(vouched).filter(|_| self.hold(now).is_none() && now - vouched <= LONGEST_LAG)
    }
}

/// A process whose newest stamp is older than this is lost, if others wait for it.
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
    fn silence_is_judged_up_to_what_every_awaited_process_has_vouched_for() {
        let all_is_well = Hearing {
            last_stamp: Some(at(100)),
            vouched_until: Some(at(99)),
            ..Hearing::default()
        };
        let cases = [
            ("nobody ever listened", Hearing::default(), None, Some(at(100))),
            ("all is well", all_is_well, None, Some(at(99))),
            (
                "nobody is waited for",
                Hearing {
                    vouched_until: None,
                    ..all_is_well
                },
                None,
                Some(at(100)),
            ),
            (
                "a clock that is fast vouches for nothing to come",
                Hearing {
                    vouched_until: Some(at(101)),
                    ..all_is_well
                },
                None,
                Some(at(100)),
            ),
            (
                "one is lost",
                Hearing {
                    vouched_until: Some(at(90)),
                    lost: 1,
                    ..all_is_well
                },
                Some(Hold::LostListener),
                None,
            ),
            (
                "one may be lost in a moment",
                Hearing {
                    vouched_until: Some(at(97)),
                    ..all_is_well
                },
                None,
                None,
            ),
            (
                "one replays",
                Hearing {
                    spooled: 1,
                    ..all_is_well
                },
                Some(Hold::Spooled),
                None,
            ),
            (
                "nobody listens",
                Hearing {
                    last_stamp: Some(at(97)),
                    spooled: 1,
                    lost: 1,
                    ..all_is_well
                },
                Some(Hold::NobodyListens),
                None,
            ),
        ];
        for (case, hearing, hold, judged_until) in cases {
            assert_eq!(hearing.hold(at(100)), hold, "{case}");
            assert_eq!(hearing.judged_until(at(100)), judged_until, "{case}");
        }
    }

    /// For any [`BLIND_AFTER`]: judgement and the clock never lie so far apart that a signal of now seems to come from
    /// the future. And a process whose stamps no longer count is lost half a second later.
    #[test]
    fn a_signal_of_now_is_never_one_of_times_to_come_where_judgement_is() {
        let now = at(100);
        for lag in (0..5_000).map(TimeDelta::milliseconds) {
            let vouched = now - lag;
            let is_lost = vouched < lost_before(now);
            let hearing = Hearing {
                last_stamp: Some(now),
                vouched_until: Some(vouched),
                lost: i64::from(is_lost),
                ..Hearing::default()
            };
            match hearing.judged_until(now) {
                Some(judged) => {
                    assert_eq!(judged, vouched);
                    assert!(
                        !is_to_come(now + CLOCKS_DIFFER, judged - SETTLING),
                        "{lag} behind"
                    );
                }
                None => assert!(
                    is_lost || is_blind(Some(vouched), now + SETTLING + CLOCKS_DIFFER),
                    "{lag} behind"
                ),
            }
        }
    }
}
