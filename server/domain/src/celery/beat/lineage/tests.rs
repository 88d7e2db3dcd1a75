use uuid::Uuid;

use super::*;
use crate::celery::beat::incarnation::{BeatReport, on_list, on_report};
use crate::incident::cause::Cause;
use crate::monitor::transition::tests::at;

/// The reports of some processes, and the time of the last report.
struct Story {
    known: Vec<Incarnation>,
    now: DateTime<Utc>,
}

impl Story {
    fn begin() -> Self {
        Self {
            known: Vec::new(),
            now: at(0.0),
        }
    }

    fn says(&mut self, boot: u128, second: f64) {
        self.now = at(second);
        let said = BeatReport {
            boot: Uuid::from_u128(boot),
            host: None,
            pid: None,
            started_at: None,
            period_seconds: 15.0,
            grace_seconds: 60.0,
            says_goodbye: None,
            goodbye: None,
        };
        on_report(&mut self.known, said, self.now, self.now);
        mark_sharing(&mut self.known, self.now, &[]);
    }

    /// A process lists a schedule. `common`: the entries that it has in common with lineages.
    fn lists(&mut self, boot: u128, second: f64, schedule: &str, common: &[(u8, i64)]) -> Option<u8> {
        self.says(boot, second);
        let boot = Uuid::from_u128(boot);
        let schedule = (!schedule.is_empty()).then(|| schedule.to_owned());
        on_list(&mut self.known, boot, schedule.clone());
        place(&mut self.known, boot, schedule.as_deref(), common, self.now, &[])
    }

    /// These processes report every 15 s.
    fn report(&mut self, boots: &[u128], from: i32, to: i32) {
        for second in (from..=to).step_by(15) {
            for boot in boots {
                self.says(*boot, f64::from(second));
            }
        }
    }

    fn standing(&self, census: &Census) -> Standing {
        standing(&self.known, census, false, self.now, &[])
    }
}

/// Lineage 0 lists ten entries of its own, lineage 1 eight.
const APART: &Census = &[(0b01, 10), (0b10, 8)];
/// A release has removed one of ten entries, and added one.
const RELEASES: &Census = &[(0b01, 1), (0b11, 9), (0b10, 1)];

#[test]
fn a_restart_and_a_deployment_without_a_change_stay_in_one_lineage() {
    let mut story = Story::begin();
    assert_eq!(story.lists(1, 0.0, "shop", &[]), Some(0));
    assert_eq!(story.lists(1, 60.0, "shop", &[]), Some(0));
    assert_eq!(story.lists(2, 65.0, "shop", &[(0, 9)]), Some(0), "beside it");
    assert_eq!(
        story.lists(3, 4_000.0, "shop", &[(0, 9)]),
        Some(0),
        "an hour later"
    );
    assert_eq!(
        story.standing(&[(1, 10)]),
        Standing {
            living: 1,
            ..Standing::default()
        }
    );
}

#[test]
fn a_changed_schedule_is_a_lineage_of_its_own_until_the_old_process_is_silent() {
    let mut story = Story::begin();
    story.lists(1, 0.0, "shop", &[]);
    assert_eq!(story.lists(2, 10.0, "shop v2", &[(0, 9)]), Some(1));
    story.report(&[2], 25, 70);
    assert_eq!(
        story.standing(RELEASES),
        Standing {
            living: 0b11,
            ..Standing::default()
        }
    );
    story.says(2, 76.0);
    let over = Standing {
        living: 0b10,
        replaced: 0b01,
        ..Standing::default()
    };
    assert_eq!(story.standing(RELEASES), over);
    assert_eq!(
        story.standing(APART),
        over,
        "whatever it lists: no lineages have run side by side"
    );
}

#[test]
fn a_process_continues_what_is_silent() {
    for (what, schedule, common, expected) in [
        ("the same schedule", "billing", &[][..], 1),
        ("entries in common", "billing v2", &[(1, 3), (0, 1)][..], 1),
        ("nothing in common, beside one that lives", "third", &[][..], 2),
    ] {
        let mut story = Story::begin();
        story.lists(1, 0.0, "shop", &[]);
        story.lists(2, 0.0, "billing", &[]);
        story.report(&[1, 2], 0, 300);
        story.report(&[1], 315, 450);
        assert_eq!(story.lists(3, 460.0, schedule, common), Some(expected), "{what}");
    }
    let mut story = Story::begin();
    story.lists(1, 0.0, "shop", &[]);
    assert_eq!(
        story.lists(2, 500.0, "all new", &[]),
        Some(0),
        "no other process lives"
    );
}

#[test]
fn two_that_list_the_same_and_part_are_distinguished_from_then_on() {
    // Their tables are empty when they start.
    let mut story = Story::begin();
    assert_eq!(story.lists(1, 0.0, "", &[]), Some(0));
    assert_eq!(
        story.lists(2, 1.0, "", &[]),
        Some(1),
        "an empty list proves nothing"
    );
    let mut story = Story::begin();
    story.lists(1, 0.0, "same", &[]);
    assert_eq!(story.lists(2, 1.0, "same", &[]), Some(0));
    assert_eq!(story.lists(2, 60.0, "other", &[]), Some(1));
    assert_eq!(
        story.lists(1, 70.0, "other", &[]),
        Some(0),
        "what it listed before is still its own"
    );
}

#[test]
fn applications_of_one_name_share_it_and_releases_of_one_are_two_at_once() {
    let mut story = Story::begin();
    story.lists(1, 0.0, "shop", &[]);
    story.lists(2, 0.0, "billing", &[]);
    story.report(&[1, 2], 0, 105);
    assert_eq!(
        story.standing(APART),
        Standing {
            living: 0b11,
            ..Standing::default()
        },
        "not for long enough"
    );
    story.report(&[1, 2], 120, 135);
    assert_eq!(
        story.standing(APART),
        Standing {
            living: 0b11,
            sharing: 0b11,
            ..Standing::default()
        }
    );
    assert_eq!(
        story.standing(RELEASES),
        Standing {
            living: 0b11,
            releases: 0b11,
            ..Standing::default()
        }
    );
    let alerted = standing(&story.known, APART, true, at(200.0), &[]);
    assert_eq!(alerted.sharing, 0b11, "once reported, it lasts while both live");
}

#[test]
fn one_of_two_that_share_is_lost_when_it_is_silent_and_a_release_is_replaced() {
    let mut story = Story::begin();
    story.lists(1, 0.0, "shop", &[]);
    story.lists(2, 0.0, "billing", &[]);
    story.report(&[1, 2], 0, 300);
    story.report(&[1], 315, 360);
    assert_eq!(story.standing(APART).lost, 0, "its grace is not over");
    story.report(&[1], 375, 390);
    assert_eq!(
        story.standing(APART),
        Standing {
            living: 0b01,
            lost: 0b10,
            ..Standing::default()
        }
    );
    assert_eq!(
        story.standing(RELEASES),
        Standing {
            living: 0b01,
            replaced: 0b10,
            ..Standing::default()
        }
    );
    story.report(&[1], 405, 9_000);
    assert_eq!(story.standing(APART).lost, 0b10, "it is not forgotten");
    story.lists(3, 9_001.0, "billing", &[]);
    assert_eq!(story.standing(APART).lost, 0, "its successor lists the same");
    story.report(&[], 0, 0);
    let nobody = standing(&story.known, APART, true, at(20_000.0), &[]);
    assert_eq!(
        nobody,
        Standing::default(),
        "all are silent: that is the Beat's own incident"
    );
}

#[test]
fn there_is_room_for_eight_and_a_ninth_is_refused() {
    let mut story = Story::begin();
    for boot in 0..8 {
        assert_eq!(
            story.lists(boot, boot as f64, &format!("schedule {boot}"), &[]),
            Some(boot as u8)
        );
    }
    assert_eq!(story.lists(9, 9.0, "one more", &[]), None);
    story.report(&[0, 1, 2, 3, 4, 5, 6, 9], 15, 600);
    assert_eq!(story.lists(9, 601.0, "one more", &[(7, 2)]), Some(7));
    for boot in 100..200 {
        story.says(boot, 602.0);
    }
    assert_eq!(
        bits(story.known.iter()),
        0xff,
        "invented boot ids push no lineage out"
    );
}

#[test]
fn a_monitor_asks_only_for_the_processes_that_list_its_entry() {
    let mut story = Story::begin();
    story.lists(1, 0.0, "shop", &[]);
    story.lists(2, 0.0, "billing", &[]);
    story.report(&[1, 2], 0, 300);
    story.report(&[1], 315, 390);
    let whole = BeatView {
        status: Status::Up,
        last_seen_at: Some(at(390.0)),
        deadline_at: Some(at(465.0)),
        hung_at: Some(at(395.0)),
        sent_at: Some(at(390.0)),
        send_failed_at: None,
        lost_at: None,
        skewed_since: None,
        back_at: None,
    };
    let seen = |listed_by, is_alerted| view(&story.known, listed_by, whole, is_alerted, story.now);
    for listed_by in [0b00, 0b11, 0b100] {
        assert_eq!(seen(listed_by, true), whole, "{listed_by:#b}");
    }
    let own = seen(0b01, true);
    assert_eq!((own.status, own.last_seen_at), (Status::Up, Some(at(390.0))));
    let waits = seen(0b10, false);
    assert_eq!(
        (waits.status, waits.last_seen_at, waits.deadline_at),
        (Status::Up, Some(at(300.0)), Some(at(390.0))),
        "15 s after its deadline, the other process has reported"
    );
    let lost = seen(0b10, true);
    assert_eq!(
        (lost.status, lost.deadline_at, lost.cause()),
        (Status::Down, None, Cause::BeatDown)
    );
    let silent = BeatView {
        status: Status::Down,
        deadline_at: None,
        ..whole
    };
    assert_eq!(
        view(&story.known, 0b10, silent, false, story.now),
        silent,
        "the whole Beat is silent"
    );
}
