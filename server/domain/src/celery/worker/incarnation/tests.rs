//! When incarnations end, and when their runs are decided.

use super::*;
use crate::monitor::transition::tests::at;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

fn report(id: Uuid, host: &str, phase: Phase) -> WorkerReport<'_> {
    WorkerReport {
        id,
        host: Some(host),
        period_seconds: 5.0,
        grace_seconds: 25.0,
        phase,
    }
}

fn runs(list: &mut Vec<Incarnation>, id: Uuid, host: &str, seconds: f64) -> bool {
    on_report(list, &report(id, host, Phase::Running), at(seconds))
}

fn judged(list: &mut Vec<Incarnation>, seconds: f64) -> Ended {
    end_silent(list, at(seconds), &[])
}

#[test]
fn one_that_is_restarted_on_its_host_is_replaced_when_it_has_missed_two_reports() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);

    assert!(runs(&mut list, B, "web-1", 3.0), "A reported a moment ago");
    assert_eq!(next_judgement(&list, &[]), Some(at(10.0)));
    assert_eq!(judged(&mut list, 9.9), []);
    assert_eq!(judged(&mut list, 10.0), [(A, End::Replaced)]);

    assert!(!runs(&mut list, B, "web-1", 11.0), "A lives no more");
}

#[test]
fn two_of_one_name_that_report_alternately_both_live() {
    let mut list = Vec::new();
    for second in 0..100 {
        let (id, host) = if second % 2 == 0 {
            (A, "web-1")
        } else {
            (B, "web-1")
        };
        runs(&mut list, id, host, f64::from(second * 2));
        assert_eq!(judged(&mut list, f64::from(second * 2)), []);
    }

    // B's last report came at 198, A's at 196. A is silent since.
    for second in 200..225 {
        runs(&mut list, B, "web-1", f64::from(second));
        assert_eq!(judged(&mut list, f64::from(second)), []);
    }
    assert_eq!(judged(&mut list, 226.0), [(A, End::Silent)]);
}

#[test]
fn one_of_another_host_proves_nothing_of_the_first() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);
    runs(&mut list, B, "web-2", 3.0);

    runs(&mut list, B, "web-2", 29.0);
    assert_eq!(judged(&mut list, 29.9), []);
    assert_eq!(judged(&mut list, 30.0), [(A, End::Silent)]);
}

#[test]
fn an_end_report_is_decided_when_the_last_reports_have_come() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);

    assert!(!on_report(
        &mut list,
        &report(A, "web-1", Phase::Stopped),
        at(4.0)
    ));
    assert!(!on_report(
        &mut list,
        &report(A, "web-1", Phase::Stopped),
        at(5.0)
    ));

    assert_eq!(next_judgement(&list, &[]), Some(at(12.0)));
    assert_eq!(judged(&mut list, 11.9), []);
    assert_eq!(judged(&mut list, 12.0), [(A, End::Stopped)]);
}

#[test]
fn one_that_is_killed_while_it_stops_is_silent() {
    let mut list = Vec::new();
    on_report(&mut list, &report(A, "web-1", Phase::Stopping), at(0.0));

    assert_eq!(next_judgement(&list, &[]), Some(at(30.0)));
    assert_eq!(judged(&mut list, 30.0), [(A, End::Silent)]);
}

#[test]
fn a_start_that_is_reported_late_is_decided_too_and_then_it_is_forgotten() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);
    assert_eq!(judged(&mut list, 30.0), [(A, End::Silent)]);

    assert_eq!(next_judgement(&list, &[]), Some(at(60.0)));
    assert_eq!(judged(&mut list, 59.0), []);
    assert_eq!(judged(&mut list, 60.0), [(A, End::Silent)]);

    assert_eq!(list, []);
    assert_eq!(next_judgement(&list, &[]), None);
}

#[test]
fn one_that_was_taken_for_dead_and_reports_lives() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);
    judged(&mut list, 30.0);

    runs(&mut list, A, "web-1", 31.0);

    assert!(list[0].is_live());
    assert_eq!(list[0].gap, Some((at(0.0), at(31.0))));
    assert_eq!(judged(&mut list, 60.0), []);
    assert_eq!(judged(&mut list, 61.0), [(A, End::Silent)], "decided anew");
}

#[test]
fn a_silence_that_began_while_we_could_not_listen_is_excused_and_then_unknown() {
    let spell = BlindSpell {
        started_at: at(4.0),
        ended_at: at(24.0),
    };
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);

    assert_eq!(end_silent(&mut list, at(53.9), &[spell]), []);
    assert_eq!(next_judgement(&list, &[spell]), Some(at(54.0)));
    assert_eq!(end_silent(&mut list, at(54.0), &[spell]), [(A, End::Unheard)]);
}

#[test]
fn a_silence_that_began_before_the_spell_is_a_fault() {
    let spell = BlindSpell {
        started_at: at(15.0),
        ended_at: at(24.0),
    };
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);

    assert_eq!(end_silent(&mut list, at(54.0), &[spell]), [(A, End::Silent)]);
}

#[test]
fn a_short_silence_is_no_gap_in_which_reports_are_held() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);
    runs(&mut list, A, "web-1", 9.9);
    assert_eq!(list[0].gap, None);

    runs(&mut list, A, "web-1", 20.0);
    assert_eq!(list[0].gap, Some((at(9.9), at(20.0))));
}

#[test]
fn the_list_is_bounded_and_those_that_live_stay() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 0.0);
    for number in 10..1_000_u128 {
        let id = Uuid::from_u128(number);
        on_report(&mut list, &report(id, "web-1", Phase::Stopped), at(1.0));
        assert!(list.len() <= WORKER_INCARNATIONS);
    }
    assert!(list.iter().any(|one| one.id == A && one.is_live()));

    for number in 2_000..3_000_u128 {
        runs(&mut list, Uuid::from_u128(number), "web-1", number as f64);
    }

    assert_eq!(list.len(), WORKER_INCARNATIONS);
    assert!(list.iter().all(|one| one.last_seen_at >= at(2_968.0)));
}

#[test]
fn a_clock_that_is_stepped_back_hides_no_death() {
    let mut list = Vec::new();
    runs(&mut list, A, "web-1", 10_000.0);

    assert_eq!(judged(&mut list, 0.0), []);
    assert_eq!(judged(&mut list, 30.0), [(A, End::Silent)]);
}

#[test]
fn a_redelivery_is_awaited_for_the_visibility_timeout_and_never_for_longer_than_an_hour() {
    let after = |timeout: Option<i64>| redelivered_by(at(0.0), timeout.map(TimeDelta::seconds));

    assert_eq!(after(None), at(60.0));
    assert_eq!(after(Some(20)), at(80.0));
    assert_eq!(after(Some(1_000_000)), at(3_660.0));
}

#[test]
fn the_next_judgement_is_always_to_come_after_a_judgement() {
    let spell = BlindSpell {
        started_at: at(7.0),
        ended_at: at(12.0),
    };
    let mut list = Vec::new();
    for second in 0..300_u32 {
        let now = f64::from(second);
        if second % 7 == 0 {
            runs(&mut list, Uuid::from_u128(u128::from(second / 20)), "web-1", now);
        }
        if second % 31 == 0 {
            on_report(&mut list, &report(A, "web-1", Phase::Stopped), at(now));
        }
        let _ = end_silent(&mut list, at(now), &[spell]);
        assert!(
            next_judgement(&list, &[spell]).is_none_or(|next| next > at(now)),
            "the evaluator would sweep without end"
        );
    }
}
