//! Up to which instant silence may be judged: only up to what every process that takes signals in has vouched for (ADR 025).

use chrono::{DateTime, TimeDelta, Utc};

use crate::judge::blind_spell::{BLIND_AFTER, is_blind};

/// What the processes that take signals in have said of themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hearing {
    /// The newest word of any process that it listens. None: there never was one.
    pub last_stamp: Option<DateTime<Utc>>,
    /// Signals in the spools of processes that are there.
    pub spooled: i64,
    /// The oldest newest word of those that others wait for. None: nobody waits for any.
    pub vouched_until: Option<DateTime<Utc>>,
    /// Processes that went silent without signing off, and that others wait for.
    pub lost: i64,
    /// Until when others wait for the last of these.
    pub waits_until: Option<DateTime<Utc>>,
}

/// Judgement never lies further behind the clock than this. Pings that came since would otherwise seem to come from times to come
/// ([`crate::judge::blind_spell::is_to_come`]).
const LONGEST_LAG: TimeDelta = TimeDelta::seconds(2);

/// Why silence means nothing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// No process takes signals in.
    NobodyListens,
    /// Signals that were received are not written yet.
    Spooled,
    /// A process that may hold signals went silent without signing off.
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
    /// Why silence means nothing now, if that is so.
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
    /// What was due after the newest word of a process may lie in its spool, also before that process is known to be lost.
    #[must_use]
    pub fn judged_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let vouched = self.vouched_until.map_or(now, |vouched| vouched.min(now));
        Some(vouched).filter(|_| self.hold(now).is_none() && now - vouched <= LONGEST_LAG)
    }
}

/// Whether a process whose newest word is that old is lost, as long as others wait for it.
#[must_use]
pub fn lost_before(now: DateTime<Utc>) -> DateTime<Utc> {
    now - BLIND_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
