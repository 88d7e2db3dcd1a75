use uuid::Uuid;

use super::*;
use crate::celery::beat::incarnation::{BeatReport, on_report};
use crate::monitor::transition::tests::at;

/// How a process of the story ends.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    /// Without a report.
    Killed,
    /// By an error, and reports it.
    Fails,
    /// As ordered, and reports it.
    Stops,
    /// Without a report, because its SDK is too old for one.
    Old,
}

/// A report of a process that started at second `start`.
fn said(boot: u128, start: i32, kind: Ends, is_last: bool) -> BeatReport {
    BeatReport {
        boot: Uuid::from_u128(boot),
        host: Some("vm".to_owned()),
        pid: Some(boot as i64),
        started_at: Some(at(f64::from(start) - 0.5)),
        period_seconds: 1.0,
        grace_seconds: 4.0,
        says_goodbye: (kind != Ends::Old).then_some(true),
        goodbye: match kind {
            Ends::Fails if is_last => Some(EndReport::Failed(Some("OSError".to_owned()))),
            Ends::Stops if is_last => Some(EndReport::Stopped),
            _ => None,
        },
    }
}

/// A process reports every second from its start until its end.
fn lives(known: &mut Vec<Incarnation>, boot: u128, from: i32, to: i32, ends: Ends) {
    for second in from..=to {
        let now = at(f64::from(second));
        on_report(known, said(boot, from, ends, second == to), now, now);
    }
}

type Story = [(i32, i32, Ends)];

/// The Beat of these processes, which live one after the other, as (from, to, end).
fn alerted_of(story: &Story) -> Vec<Incarnation> {
    let mut known = Vec::new();
    for (place, (from, to, ends)) in story.iter().enumerate() {
        lives(&mut known, place as u128 + 1, *from, *to, *ends);
    }
    known
}

/// The number of crashes in a row at second `now`.
fn after(story: &Story, now: f64) -> usize {
    longest(&alerted_of(story), false, at(now), &[]).len()
}

const KILLED: &Story = &[
    (0, 7, Ends::Killed),
    (9, 16, Ends::Killed),
    (18, 25, Ends::Killed),
    (27, 34, Ends::Killed),
];

#[test]
fn a_beat_that_is_killed_every_few_seconds_loops_with_the_third_time() {
    assert_eq!(after(&KILLED[..2], 12.0), 1);
    assert_eq!(after(&KILLED[..3], 22.0), 2);
    assert_eq!(after(KILLED, 29.5), 3, "the last one lives");
    assert_eq!(after(KILLED, 60.0), 3, "the last one may hang");
    assert_eq!(after(KILLED, 3_600.0), 0, "long ago");
}

#[test]
fn another_crash_is_waited_for_for_a_minute_and_two_missed_reports_at_least() {
    let mut known = alerted_of(KILLED);
    let until = |known: &[Incarnation]| Course::of(&longest(known, false, at(29.5), &[])).doubt_until;
    assert_eq!(until(&known), Some(at(85.0)));
    known[2].period_seconds = 30.0;
    let rare = longest(&known, false, at(145.0), &[]);
    assert_eq!(Course::of(&rare[..3]).doubt_until, Some(at(145.0)));
    assert_eq!(Course::of(&[]), Course::default());
    for (crashes, expected) in [(2, false), (3, true)] {
        assert_eq!(Course::of(&rare[..crashes]).loops(), expected);
    }
}

#[test]
fn one_that_says_by_which_error_it_ends_has_crashed_at_once() {
    let story = [(0, 7, Ends::Fails), (9, 16, Ends::Fails), (18, 25, Ends::Fails)];
    assert_eq!(after(&story, 25.0), 3);
}

#[test]
fn deployments_are_no_crashes_however_many() {
    let deployed: Vec<(i32, i32, Ends)> = (0..8).map(|n| (n * 9, n * 9 + 7, Ends::Stops)).collect();
    assert_eq!(after(&deployed, 75.0), 0);
}

#[test]
fn a_restart_ends_the_row_and_does_not_end_what_is_reported() {
    let mut story = KILLED[..3].to_vec();
    story.extend([(27, 34, Ends::Stops), (36, 40, Ends::Killed)]);
    assert_eq!(after(&story, 40.0), 0);
    let alerted = |story: &Story, now: f64| longest(&alerted_of(story), true, at(now), &[]).len();
    assert_eq!(alerted(&story, 40.0), 3, "it was an attempt to repair it");
    story[4].1 = 96;
    assert_eq!(alerted(&story, 96.0), 0, "it was repaired");
}

#[test]
fn an_older_sdk_that_reports_no_end_is_not_judged() {
    let story: Vec<(i32, i32, Ends)> = (0..6).map(|n| (n * 9, n * 9 + 7, Ends::Old)).collect();
    assert_eq!(after(&story, 56.0), 0);
}

#[test]
fn one_that_lives_for_long_enough_is_steady_again() {
    let mut story = KILLED[..3].to_vec();
    for (to, expected) in [(80, 3), (87, 0)] {
        story.truncate(3);
        story.push((27, to, Ends::Killed));
        assert_eq!(after(&story, f64::from(to)), expected, "lives until {to}");
    }
    // The next crash is the first one again.
    story.push((90, 97, Ends::Killed));
    story.push((99, 100, Ends::Killed));
    assert_eq!(after(&story, 102.0), 1);
}

#[test]
fn crashes_of_a_process_that_lived_for_long_are_rare_events() {
    let story = [
        (0, 700, Ends::Killed),
        (702, 1_400, Ends::Killed),
        (1_402, 2_100, Ends::Killed),
        (2_102, 2_105, Ends::Killed),
    ];
    assert_eq!(after(&story, 2_106.0), 0);
}

#[test]
fn who_ended_while_nobody_could_receive_it_may_have_reported_its_end() {
    let known = alerted_of(KILLED);
    let deaf = |from: f64, to: f64| BlindSpell {
        started_at: at(from),
        ended_at: at(to),
    };
    assert_eq!(longest(&known, false, at(32.0), &[]).len(), 3);
    let spells = [deaf(7.5, 10.0), deaf(16.5, 19.0)];
    assert_eq!(longest(&known, false, at(32.0), &spells).len(), 1);
}

/// The same story in that lineage, or in none. Another process, of lineage 0, has reported for long before, and does so
/// until second `to`.
fn beside(story: &Story, lineage: Option<u8>, to: i32) -> Vec<Incarnation> {
    let mut known = Vec::new();
    lives(&mut known, 99, -700, to, Ends::Killed);
    known[0].lineage = Some(0);
    for one in alerted_of(story) {
        known.push(Incarnation { lineage, ..one });
    }
    known
}

#[test]
fn two_beats_side_by_side_do_not_crash() {
    let mut known = Vec::new();
    for second in 0..60 {
        for boot in [1, 2] {
            let now = at(f64::from(second));
            on_report(&mut known, said(boot, 0, Ends::Killed, false), now, now);
        }
    }
    assert_eq!(longest(&known, false, at(58.0), &[]), Vec::<&Incarnation>::new());
}

#[test]
fn one_that_crashes_beside_a_steady_one_of_the_same_schedule_is_no_loop() {
    let known = beside(KILLED, Some(0), 29);
    assert_eq!(
        longest(&known, false, at(30.0), &[]).len(),
        0,
        "it sends everything"
    );
    assert_eq!(
        longest(&known, false, at(60.0), &[]).len(),
        3,
        "it has ended, too"
    );

    // With RedBeat, a process may wait for its turn and fail. It has listed nothing.
    let known = beside(KILLED, None, 29);
    assert_eq!(longest(&known, false, at(30.0), &[]).len(), 0);
}

#[test]
fn another_application_of_the_same_name_hides_no_loop_and_is_none() {
    let known = beside(KILLED, Some(1), 29);
    let of = |lineages: Bits| crashes(&known, lineages, false, at(30.0), &[]).len();
    assert_eq!((of(0b01), of(0b10)), (0, 3));
    assert_eq!(longest(&known, false, at(30.0), &[]).len(), 3);
}
