use super::*;
use crate::monitor::transition::tests::at;

/// A process that reports every 15 s, with 60 s of grace.
fn report(boot: u128) -> BeatReport {
    BeatReport {
        boot: Uuid::from_u128(boot),
        host: Some(format!("host-{boot}")),
        pid: Some(boot as i64),
        started_at: None,
        period_seconds: 15.0,
        grace_seconds: 60.0,
        says_goodbye: None,
        goodbye: None,
    }
}

/// The processes that run twice at the time of the last report. `reports`: (boot id, made at, arrived at), all with one
/// schedule.
fn twice(reports: &[(u128, f64, f64)]) -> Vec<u128> {
    let (known, now) = after(reports);
    boots(&duplicates(&known, false, now, &[]))
}

fn after(reports: &[(u128, f64, f64)]) -> (Vec<Incarnation>, DateTime<Utc>) {
    let mut known = Vec::new();
    let mut now = at(0.0);
    for (boot, spoken, reported) in reports {
        now = at(*reported);
        on_report(&mut known, report(*boot), at(*spoken), now);
        on_list(&mut known, Uuid::from_u128(*boot), Some("same".to_owned()));
    }
    (known, now)
}

fn boots(found: &[&Incarnation]) -> Vec<u128> {
    found.iter().map(|one| one.boot.as_u128()).collect()
}

/// A process that reports from `from` to `to`, every 15 s. Each report arrives at once.
fn reports(boot: u128, from: i32, to: i32) -> Vec<(u128, f64, f64)> {
    (from..=to)
        .step_by(15)
        .map(|second| (boot, f64::from(second), f64::from(second)))
        .collect()
}

fn in_order(parts: &[Vec<(u128, f64, f64)>]) -> Vec<(u128, f64, f64)> {
    let mut all: Vec<_> = parts.concat();
    all.sort_by(|one, other| one.2.total_cmp(&other.2));
    all
}

#[test]
fn two_that_go_on_side_by_side_are_two_at_once() {
    let short = in_order(&[reports(1, 0, 600), reports(2, 485, 600)]);
    assert_eq!(twice(&short), [0; 0], "an overlap of less than two minutes");
    let long = in_order(&[reports(1, 0, 615), reports(2, 485, 620)]);
    assert_eq!(twice(&long), [1, 2]);
    let three = in_order(&[reports(1, 0, 600), reports(2, 0, 600), reports(3, 0, 600)]);
    assert_eq!(twice(&three), [1, 2, 3]);
}

#[test]
fn a_deployment_is_not_two_at_once() {
    for (what, reports) in [
        (
            "one after the other",
            vec![reports(1, 0, 600), reports(2, 605, 1200)],
        ),
        (
            "the old process reports twice more",
            vec![reports(1, 0, 630), reports(2, 605, 700)],
        ),
        (
            "both report for a minute and a half",
            vec![reports(1, 0, 600), reports(2, 510, 1200)],
        ),
        (
            "five deployments in a row, each with a minute of overlap",
            (0..5)
                .map(|n| reports(n, n as i32 * 60, n as i32 * 60 + 120))
                .collect(),
        ),
        (
            "a crash loop",
            (0..40)
                .map(|n| reports(n, n as i32 * 16, n as i32 * 16))
                .collect(),
        ),
    ] {
        let all = in_order(&reports);
        for end in 1..=all.len() {
            assert_eq!(twice(&all[..end]), [0; 0], "{what}, after {end} reports");
        }
    }
}

#[test]
fn late_reordered_and_repeated_reports_of_one_that_is_over_prove_nothing() {
    // Its last ten minutes arrive while its successor has reported for ten minutes.
    let late = reports(1, 0, 600)
        .into_iter()
        .map(|(boot, spoken, _)| (boot, spoken, 1200.0 + spoken / 100.0));
    let mut late: Vec<_> = late.collect();
    late.reverse();
    let all = in_order(&[reports(2, 605, 1300), late.clone(), late]);
    for end in 1..=all.len() {
        assert_eq!(twice(&all[..end]), [0; 0], "after {end} reports");
    }
}

#[test]
fn one_that_was_stopped_and_goes_on_was_not_there_in_between() {
    let frozen = in_order(&[reports(1, 0, 300), reports(2, 305, 1200), reports(1, 1000, 1015)]);
    assert_eq!(twice(&frozen), [0; 0], "it has only just come back");
    let back = in_order(&[reports(1, 0, 300), reports(2, 305, 1200), reports(1, 1000, 1195)]);
    assert_eq!(
        twice(&back),
        [2, 1],
        "the first process reports again only since then"
    );
}

#[test]
fn it_is_over_when_one_is_silent_for_long_enough_and_not_because_we_were() {
    let (known, _) = after(&in_order(&[reports(1, 0, 600), reports(2, 0, 600)]));
    let alerted = |now: f64, spells: &[BlindSpell]| boots(&duplicates(&known, true, at(now), spells));
    assert_eq!(alerted(674.9, &[]), [1, 2]);
    assert_eq!(alerted(675.0, &[]), [0; 0]);
    let spell = BlindSpell {
        started_at: at(601.0),
        ended_at: at(1_000.0),
    };
    assert_eq!(alerted(1_074.0, &[spell]), [1, 2]);
    assert_eq!(alerted(1_075.0, &[spell]), [0; 0]);
}

#[test]
fn other_schedules_and_lists_that_are_not_known_are_no_duplicates() {
    let (mut known, now) = after(&in_order(&[reports(1, 0, 600), reports(2, 0, 600)]));
    on_list(&mut known, Uuid::from_u128(2), Some("another".to_owned()));
    assert_eq!(boots(&duplicates(&known, true, now, &[])), [0; 0]);
    for boot in [1, 2] {
        on_list(&mut known, Uuid::from_u128(boot), None);
    }
    assert_eq!(boots(&duplicates(&known, true, now, &[])), [0; 0]);
}

#[test]
fn invented_boot_ids_take_a_bounded_room_and_the_longest_silent_one_goes() {
    let mut known = Vec::new();
    for boot in 0..100 {
        on_report(&mut known, report(boot), at(boot as f64), at(boot as f64));
        on_report(&mut known, report(1_000), at(boot as f64), at(boot as f64));
    }
    assert_eq!(known.len(), REMEMBERED);
    assert!(
        known.iter().any(|one| one.boot == Uuid::from_u128(1_000)),
        "it still reports"
    );
    on_report(&mut known, report(7), at(5_000.0), at(5_000.0));
    assert_eq!(known.len(), 1, "the silent processes are forgotten");
}

#[test]
fn a_time_that_lies_ahead_after_our_clock_was_stepped_back_does_not_last() {
    let mut known = Vec::new();
    on_report(&mut known, report(1), at(9_000.0), at(9_000.0));
    on_report(&mut known, report(2), at(100.0), at(100.0));
    assert!(known.iter().all(|one| one.seen_at == at(100.0)), "{known:?}");
    assert_eq!(boots(&duplicates(&known, false, at(100.0), &[])), [0; 0]);
}
