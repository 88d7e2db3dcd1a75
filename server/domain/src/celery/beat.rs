//! Celery Beat as a [`crate::celery::switch`]: the SDK sends a heartbeat after each tick.

pub mod crash_loop;
pub mod incarnation;
pub mod lineage;

use chrono::{DateTime, TimeDelta, Utc};

use crate::celery::beat::crash_loop::CRASHES;
use crate::celery::switch::{self, Switch};
use crate::change::Transition;
use crate::incident::cause::Cause;
use crate::judge::blind_spell::BlindSpell;
use crate::monitor::status::Status;
use crate::time::span;

/// An entry is a storm if it is sent this often within [`STORM_WINDOW`], and ten times as often as its schedule asks
/// for.
pub const STORM_COUNT: u32 = 100;
/// See [`STORM_COUNT`]. A storm is over if none was observed for this long.
pub const STORM_WINDOW: TimeDelta = TimeDelta::seconds(60);

/// The least number of entries whose loss counts as a lost schedule. A single entry may leave like any other.
pub const SCHEDULE_ENTRIES: usize = 2;
/// How long an empty list must last before it opens an incident. A scheduler that has just started may not have read
/// its table yet.
pub const EMPTIED_PATIENCE: TimeDelta = TimeDelta::seconds(30);

/// True if every Beat lists this entry, whatever its schedule: the SDK's canary, and Celery's own entries
/// (`celery.backend_cleanup`).
#[must_use]
pub fn is_of_every_beat(entry: &str) -> bool {
    entry == "deadbeat.canary" || entry.starts_with("celery.")
}

/// True if a list removes a Beat's whole schedule. `watched`: number of monitors that were not retired before this
/// list. `enabled`: number of enabled entries in the list.
#[must_use]
pub fn is_emptied(watched: usize, enabled: usize) -> bool {
    watched >= SCHEDULE_ENTRIES && enabled == 0
}

/// The facts about a Beat that the verdict on a monitor needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatView {
    /// Its status.
    pub status: Status,
    /// When its last heartbeat came.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it is declared down.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When its process last reported that its loop hangs.
    pub hung_at: Option<DateTime<Utc>>,
    /// When it last sent any entry.
    pub sent_at: Option<DateTime<Utc>>,
    /// When the broker last refused one of its messages.
    pub send_failed_at: Option<DateTime<Utc>>,
    /// When a process of its application last reported that it had to drop events.
    pub lost_at: Option<DateTime<Utc>>,
    /// Since when its clock skew has been too large.
    pub skewed_since: Option<DateTime<Utc>>,
    /// Since when one of its processes has reported without a gap.
    pub back_at: Option<DateTime<Utc>>,
}

impl BeatView {
    /// How long it may be silent.
    pub(crate) fn patience(&self) -> Option<TimeDelta> {
        Some(self.deadline_at? - self.last_seen_at?)
    }

    /// The cause of its silence.
    #[must_use]
    pub fn cause(&self) -> Cause {
        if self.hung_at > self.last_seen_at {
            Cause::BeatStalled
        } else {
            Cause::BeatDown
        }
    }
}

/// Returns the cause of a Beat's silence. A hanging process reports the hang once a period, so an old report of a hang
/// proves nothing.
#[must_use]
pub fn silence(beat: &Switch, hung_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Cause {
    let young = now - span(beat.period_seconds * 2.5) - TimeDelta::seconds(5);
    if hung_at.is_some_and(|hung| hung > young && Some(hung) > beat.last_seen_at) {
        Cause::BeatStalled
    } else {
        Cause::BeatDown
    }
}

/// Judges the silence of a Beat whose `check_after` has passed. None: it is not overdue, or its silence belongs to an
/// open crash loop.
#[must_use]
pub fn on_silence(
    beat: &mut Switch,
    cause: Cause,
    now: DateTime<Utc>,
    spells: &[BlindSpell],
) -> Option<Transition> {
    if beat.status == Status::Down && beat.trouble == Some(Cause::BeatCrashLoop) {
        // Between two starts it is always silent.
        beat.deadline_at = beat.deadline_at.filter(|deadline| *deadline > now);
        return None;
    }
    let transition = switch::on_silence(beat, cause, now, spells);
    if cause == Cause::BeatCrashLoop && transition.is_some_and(|one| one.to == Status::Down) {
        // The next start does not end the crash loop.
        beat.trouble = Some(cause);
        beat.since = Some(now);
    }
    transition
}

/// True if the Beat is down because of a crash loop. Its next start does not end that.
#[must_use]
pub fn is_alerted_of_crashes(beat: &Switch) -> bool {
    beat.status == Status::Down && beat.trouble == Some(Cause::BeatCrashLoop)
}

/// True if a Beat that reports is down because of its crashes. `crashes`: number of crashes in a row until now.
/// `is_alerted`: an incident reports the crash loop; the incident may be inferred from the Beat's monitors. Crashes
/// without such an incident, and without an alert about silence, do no harm.
#[must_use]
pub fn is_crashing(beat: &mut Switch, crashes: usize, is_alerted: bool) -> bool {
    if !is_alerted {
        return crashes >= CRASHES && beat.status == Status::Down && beat.trouble.is_none();
    }
    if crashes == 0 && beat.status != Status::Down {
        // Its process has lived long enough since its monitors missed runs, and sent no report in between. Make it
        // `down`, so that this report also ends the inferred incident.
        beat.status = Status::Down;
        beat.trouble = Some(Cause::BeatCrashLoop);
    }
    crashes > 0
}

/// True if an entry is a storm: Beat sent it `count` times within [`STORM_WINDOW`], and its schedule has `slots` in
/// that time.
#[must_use]
pub fn is_storm(count: u32, slots: u32) -> bool {
    count >= STORM_COUNT && count / 10 >= slots.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Trigger;
    use crate::monitor::transition::tests::at;

    /// It sends a heartbeat every 15 s; the last one came at noon.
    fn beat() -> Switch {
        Switch {
            status: Status::Up,
            period_seconds: 15.0,
            grace_seconds: 60.0,
            last_seen_at: Some(at(0.0)),
            deadline_at: Some(at(75.0)),
            trouble: None,
            since: None,
        }
    }

    #[test]
    fn a_silent_beat_hangs_when_its_process_has_just_said_so_and_is_down_else() {
        for (hung, expected) in [
            (None, Cause::BeatDown),
            (Some(75.0), Cause::BeatStalled),
            (Some(32.6), Cause::BeatStalled),
            // Two and a half periods, and 5 s: it has fallen silent as well.
            (Some(32.5), Cause::BeatDown),
            // The hang lies before the last turn of its loop.
            (Some(-1.0), Cause::BeatDown),
        ] {
            assert_eq!(silence(&beat(), hung.map(at), at(75.0)), expected, "{hung:?}");
        }
        let never_reported = Switch {
            last_seen_at: None,
            ..beat()
        };
        assert_eq!(
            silence(&never_reported, Some(at(70.0)), at(75.0)),
            Cause::BeatStalled
        );
        let just_reported = Switch {
            last_seen_at: Some(at(70.0)),
            ..beat()
        };
        assert_eq!(silence(&just_reported, Some(at(70.0)), at(75.0)), Cause::BeatDown);
    }

    #[test]
    fn a_loop_that_is_reported_goes_on_from_one_start_to_the_next() {
        let mut beat = beat();

        let alerted = on_silence(&mut beat, Cause::BeatCrashLoop, at(75.0), &[]).unwrap();
        assert_eq!(alerted.trigger, Trigger::Trouble(Cause::BeatCrashLoop));
        assert!(is_alerted_of_crashes(&beat));

        let loops = Some((Cause::BeatCrashLoop, TimeDelta::zero()));
        assert!(
            is_crashing(&mut beat, 1, true),
            "until a process lives for long enough"
        );
        assert_eq!(switch::on_heartbeat(&mut beat, loops, at(100.0), at(100.0)), None);
        assert_eq!(beat.deadline_at, Some(at(175.0)));
        assert_eq!(
            on_silence(&mut beat, Cause::BeatCrashLoop, at(175.0), &[]),
            None,
            "once"
        );
        assert_eq!(beat.deadline_at, None, "it is silent, as its monitors show");
        assert_eq!(on_silence(&mut beat, Cause::BeatDown, at(176.0), &[]), None);

        let steady = switch::on_heartbeat(&mut beat, None, at(200.0), at(200.0)).unwrap();
        assert_eq!(steady.to, Status::Up);
    }

    #[test]
    fn silence_that_is_reported_becomes_a_loop_without_another_incident() {
        let mut beat = beat();
        let alerted = on_silence(&mut beat, Cause::BeatDown, at(75.0), &[]).unwrap();
        assert_eq!(alerted.trigger, Trigger::Trouble(Cause::BeatDown));
        assert!(!is_crashing(&mut beat, 2, false), "it is back");
        assert!(is_crashing(&mut beat, 3, false));

        let loops = Some((Cause::BeatCrashLoop, TimeDelta::zero()));
        assert_eq!(switch::on_heartbeat(&mut beat, loops, at(100.0), at(100.0)), None);
        assert!(is_alerted_of_crashes(&beat));

        beat.trouble = Some(Cause::ClockSkew);
        assert!(
            !is_crashing(&mut beat, 3, false),
            "the incident reports something else"
        );
    }

    #[test]
    fn a_loop_that_monitors_named_ends_with_a_beat_that_lives() {
        let mut well = Switch {
            status: Status::Up,
            ..beat()
        };
        assert!(!is_crashing(&mut well, 5, false), "no monitor is missing a run");
        assert_eq!(well.status, Status::Up);

        assert!(!is_crashing(&mut well, 0, true));
        let over = switch::on_heartbeat(&mut well, None, at(10.0), at(10.0)).unwrap();
        assert_eq!((over.from, over.to), (Status::Down, Status::Up));
    }

    #[test]
    fn a_storm_is_a_hundred_a_minute_and_ten_times_the_schedule() {
        for (count, slots, expected) in [
            (0, 0, false),
            (99, 0, false),
            (100, 0, true),
            (100, 1, true),
            (100, 10, true),
            (109, 10, true),
            (100, 11, false),
            (600, 60, true),
            (599, 60, false),
            (u32::MAX, 10_000, true),
        ] {
            assert_eq!(is_storm(count, slots), expected, "{count} of {slots}");
        }
    }
}
