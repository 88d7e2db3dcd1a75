//! Holds: they delay or mute alerts. This module computes when an alert may be sent.
//!
//! A delay, quiet hours, a maintenance window and a snooze each give a time before which an alert is not sent.
//! [`release`] finds the first time at which none of them applies. A mute gives no such time. Every held alert is
//! stored as a delivery that waits.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::routing::{Routing, Traits};
use crate::alert::Alert;
use crate::incident::SubjectKind;
use crate::incident::severity::Severity;
use crate::schedule::Schedule;

/// Most steps from one hold to the next. If two windows follow each other without end, the alert is released after so
/// many steps.
const MOST_STEPS: usize = 64;

/// Delays or mutes alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// Which incidents it holds.
    pub scope: Scope,
    /// When.
    pub time: Time,
}

/// The incidents whose alerts a hold covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of the project.
    Project,
    /// Those about these monitors, and those about monitors with one of these tags.
    Monitors {
        /// Ids of monitors.
        ids: BTreeSet<Uuid>,
        /// Tags.
        tags: BTreeSet<String>,
    },
}

/// When a hold applies.
#[derive(Debug, Clone, PartialEq)]
pub enum Time {
    /// Until a person removes the hold.
    Always,
    /// From one instant until another one.
    Once {
        /// Its beginning.
        from: DateTime<Utc>,
        /// Its end, which is not a part of it.
        until: DateTime<Utc>,
    },
    /// For a fixed time after each slot of a schedule.
    Each {
        /// When it begins.
        schedule: Box<Schedule>,
        /// How long it lasts.
        length: TimeDelta,
        /// The first beginning whose stretch is not over when the hold is loaded. Finding a slot takes microseconds,
        /// and a storm of alerts repeats that for each alert.
        first: Option<DateTime<Utc>>,
    },
}

impl Time {
    /// For a fixed time after each slot, from `now` on.
    #[must_use]
    pub fn each(schedule: Box<Schedule>, length: TimeDelta, now: DateTime<Utc>) -> Self {
        let first = schedule.next_after(now - length);
        Self::Each {
            schedule,
            length,
            first,
        }
    }
}

/// The end of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Until(DateTime<Utc>),
    Always,
}

/// The time at which an alert may be sent to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// At once.
    Now,
    /// Not before this time.
    At(DateTime<Utc>),
    /// Not before a person removes a mute.
    Never,
}

/// The facts about an incident that decide when its alerts may be sent.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The properties that the rules of channels check.
    pub traits: Traits<'a>,
    /// The id of its subject.
    pub subject: Uuid,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
}

impl Hold {
    /// True if the hold covers alerts about this incident.
    #[must_use]
    pub fn covers(&self, about: &About<'_>) -> bool {
        match &self.scope {
            Scope::Project => true,
            Scope::Monitors { ids, tags } => {
                about.traits.kind == SubjectKind::Monitor
                    && (ids.contains(&about.subject)
                        || about.traits.tags.iter().any(|tag| tags.contains(tag)))
            }
        }
    }

    /// Returns the end of the hold if it applies at a time.
    fn at(&self, at: DateTime<Utc>) -> Option<Held> {
        match &self.time {
            Time::Always => Some(Held::Always),
            Time::Once { from, until } => (*from <= at && at < *until).then_some(Held::Until(*until)),
            Time::Each {
                schedule,
                length,
                first,
            } => {
                let first = first.filter(|first| *first <= at)?;
                let from = if at < first + *length {
                    first
                } else {
                    schedule.next_after(at - *length).filter(|from| *from <= at)?
                };
                Some(Held::Until(from + *length))
            }
        }
    }

    /// The end of the stretch in which `at` lies. None: the hold does not apply at `at`, or has no end.
    #[must_use]
    pub fn ends_at(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.at(at) {
            Some(Held::Until(end)) => Some(end),
            _ => None,
        }
    }
}

/// Returns when an alert about an incident may be sent to a channel. `holds` are those that cover the incident.
///
/// Windows, snoozes and mutes hold only the alerts that an incident began, goes on or escalates. Those who were
/// notified of the incident also get its acknowledgement and its end at once. These alerts ask for no work, and they
/// close what is open in other services.
#[must_use]
pub fn release(
    alert: Alert,
    about: &About<'_>,
    routing: &Routing,
    holds: &[&Hold],
    now: DateTime<Utc>,
) -> Release {
    let asks = matches!(alert, Alert::Opened | Alert::Reminder | Alert::Escalated);
    let holds = if asks { holds } else { &[] };
    let mut at = now;
    if alert == Alert::Opened {
        at = at.max(about.opened_at + routing.delay());
    }
    let quiet_hours = routing
        .quiet_hours()
        .filter(|_| about.traits.severity < Severity::Critical);
    for _ in 0..MOST_STEPS {
        let mut later = quiet_hours.and_then(|hours| hours.until(at)).unwrap_or(at);
        for hold in holds {
            match hold.at(at) {
                Some(Held::Always) => return Release::Never,
                Some(Held::Until(end)) => later = later.max(end),
                None => {}
            }
        }
        if later <= at {
            break;
        }
        at = later;
    }
    if at > now { Release::At(at) } else { Release::Now }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::incident::cause::Cause;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-01-07T{text}:00Z").parse().unwrap()
    }

    fn routing(given: &Value) -> Routing {
        let mut faults = Vec::new();
        let mut read = Routing::default();
        read.apply(given.as_object().unwrap(), &mut faults);
        assert_eq!(faults, []);
        read
    }

    fn once(from: &str, until: &str) -> Hold {
        Hold {
            scope: Scope::Project,
            time: Time::Once {
                from: at(from),
                until: at(until),
            },
        }
    }

    fn daily(hour: u32, minutes: i64) -> Hold {
        let expression = format!("0 {hour} * * *");
        Hold {
            scope: Scope::Project,
            time: Time::each(
                Box::new(Schedule::cron(&expression, "UTC").unwrap()),
                TimeDelta::minutes(minutes),
                at("01:00"),
            ),
        }
    }

    fn about(cause: Cause, opened: &str) -> About<'static> {
        About {
            traits: Traits {
                kind: SubjectKind::Monitor,
                cause: Some(cause),
                severity: cause.severity(),
                tags: &[],
            },
            subject: Uuid::nil(),
            opened_at: at(opened),
        }
    }

    #[test]
    fn the_latest_of_all_holds_wins_and_one_hold_leads_to_the_next() {
        let plain = json!({});
        let delayed = json!({"delay_seconds": 3_600});
        let nights = json!({"quiet_hours": {"timezone": "UTC", "times": [{"from": "00:00", "to": "07:00"}]}});
        let mute = Hold {
            scope: Scope::Project,
            time: Time::Always,
        };
        for (alert, rules, holds, now, expected) in [
            (Alert::Opened, &plain, vec![], "01:00", Release::Now),
            (Alert::Opened, &delayed, vec![], "01:00", Release::At(at("02:00"))),
            (Alert::Reminder, &delayed, vec![], "01:00", Release::Now),
            (Alert::Opened, &nights, vec![], "01:00", Release::At(at("07:00"))),
            (
                Alert::Resolved,
                &nights,
                vec![],
                "01:00",
                Release::At(at("07:00")),
            ),
            (
                Alert::Opened,
                &plain,
                vec![once("00:30", "02:00")],
                "01:00",
                Release::At(at("02:00")),
            ),
            (
                Alert::Reminder,
                &plain,
                vec![once("00:30", "02:00")],
                "01:00",
                Release::At(at("02:00")),
            ),
            (
                Alert::Resolved,
                &plain,
                vec![once("00:30", "02:00")],
                "01:00",
                Release::Now,
            ),
            (
                Alert::Acknowledged,
                &plain,
                vec![mute.clone()],
                "01:00",
                Release::Now,
            ),
            (
                Alert::Opened,
                &plain,
                vec![once("01:01", "02:00")],
                "01:00",
                Release::Now,
            ),
            (
                Alert::Opened,
                &plain,
                vec![once("00:00", "01:00")],
                "01:00",
                Release::Now,
            ),
            // Overlapping windows, and one that begins when the other ends.
            (
                Alert::Opened,
                &plain,
                vec![
                    once("00:30", "02:00"),
                    once("01:30", "03:00"),
                    once("03:00", "04:00"),
                ],
                "01:00",
                Release::At(at("04:00")),
            ),
            // The delay ends in a window, which ends in quiet hours.
            (
                Alert::Opened,
                &delayed,
                vec![once("01:30", "05:00")],
                "01:00",
                Release::At(at("05:00")),
            ),
            (
                Alert::Opened,
                &nights,
                vec![once("06:30", "09:00")],
                "01:00",
                Release::At(at("09:00")),
            ),
            (
                Alert::Opened,
                &plain,
                vec![daily(0, 90)],
                "01:00",
                Release::At(at("01:30")),
            ),
            (Alert::Opened, &plain, vec![daily(0, 90)], "01:30", Release::Now),
            (Alert::Opened, &plain, vec![daily(2, 90)], "01:00", Release::Now),
            (
                Alert::Opened,
                &plain,
                vec![daily(23, 150)],
                "01:00",
                Release::At(at("01:30")),
            ),
            (
                Alert::Opened,
                &plain,
                vec![once("00:30", "02:00"), mute.clone()],
                "01:00",
                Release::Never,
            ),
            (
                Alert::Reminder,
                &plain,
                vec![mute.clone()],
                "01:00",
                Release::Never,
            ),
        ] {
            let holds: Vec<&Hold> = holds.iter().collect();

            let found = release(
                alert,
                &about(Cause::Missed, now),
                &routing(rules),
                &holds,
                at(now),
            );

            assert_eq!(found, expected, "{alert:?} {rules} {holds:?} {now}");
        }
    }

    #[test]
    fn what_is_critical_passes_quiet_hours_and_no_window() {
        let nights = routing(
            &json!({"quiet_hours": {"timezone": "UTC", "times": [{"from": "00:00", "to": "07:00"}]}}),
        );
        let urgent = about(Cause::BeatDown, "01:00");

        assert_eq!(
            release(Alert::Opened, &urgent, &nights, &[], at("01:00")),
            Release::Now
        );
        let window = once("00:00", "02:00");
        let held = release(Alert::Opened, &urgent, &nights, &[&window], at("01:00"));
        assert_eq!(held, Release::At(at("02:00")));
    }

    #[test]
    fn a_window_that_never_ends_releases_an_alert_all_the_same() {
        let endless = daily(0, 48 * 60);

        let found = release(
            Alert::Opened,
            &about(Cause::Missed, "01:00"),
            &Routing::default(),
            &[&endless],
            at("01:00"),
        );

        assert!(matches!(found, Release::At(_)), "{found:?}");
    }

    #[test]
    fn a_hold_covers_its_monitors_and_tags_only() {
        let tags = vec!["shop".to_owned()];
        let mut of_shop = about(Cause::Missed, "01:00");
        of_shop.subject = Uuid::from_u128(1);
        of_shop.traits.tags = &tags;
        let mut beat = of_shop;
        beat.traits.kind = SubjectKind::Beat;
        let hold = |ids: &[u128], tags: &[&str]| Hold {
            scope: Scope::Monitors {
                ids: ids.iter().copied().map(Uuid::from_u128).collect(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            },
            time: Time::Always,
        };
        for (hold, covers) in [
            (hold(&[1], &[]), true),
            (hold(&[2], &[]), false),
            (hold(&[], &["shop", "x"]), true),
            (hold(&[2], &["x"]), false),
            (hold(&[], &[]), false),
        ] {
            assert_eq!(hold.covers(&of_shop), covers, "{hold:?}");
            assert!(!hold.covers(&beat), "{hold:?}");
        }
        let all = once("00:00", "02:00");
        assert!(all.covers(&of_shop) && all.covers(&beat));
    }
}
