//! A run that later runs of its entry overtook.

use super::*;

/// A run every five seconds. `begun`: which of them began.
fn runs(begun: &[bool]) -> Vec<SentRun> {
    let sent_at = |place: usize| at(60.0) + TimeDelta::seconds(5) * (i32::try_from(place).unwrap() - 3);
    begun
        .iter()
        .enumerate()
        .map(|(place, has_begun)| SentRun {
            published_at: sent_at(place),
            has_begun: *has_begun,
        })
        .collect()
}

fn is_lost(evidence: &Evidence, begun: &[bool]) -> bool {
    evidence.is_lost_before_it_began(&sent(), &runs(begun), at(100.0))
}

#[test]
fn a_run_that_later_ones_overtook_and_nobody_holds_is_lost() {
    assert!(is_lost(&scene(), &[true, true, true, false, true]));
    assert!(
        is_lost(&scene(), &[true, true, false, false, false, true]),
        "several at once"
    );
}

#[test]
fn a_run_that_none_overtook_is_judged_by_its_slot() {
    assert!(!is_lost(&scene(), &[true, true, true, false]));
    assert!(!is_lost(&scene(), &[true, true, true, false, false]));
}

#[test]
fn a_message_that_waits_or_may_be_held_is_not_lost() {
    let runs = [true, true, true, false, true];
    let mut waits = scene();
    waits.queues[0].depth = 1;
    let mut held = scene();
    held.broker.as_mut().unwrap().unacked = Some(1);
    let mut unseen = scene();
    unseen.queues[0].seen_at = at(61.0);
    let mut silent = scene();
    silent.workers[0].last_seen_at = Some(at(65.0));
    let mut away = scene();
    away.broker.as_mut().unwrap().down_since = Some(at(70.0));
    let mut nobody = scene();
    nobody.workers.clear();

    for (what, evidence) in [
        ("it waits", waits),
        ("somebody holds it", held),
        ("nobody looked since", unseen),
        ("a worker has missed words", silent),
        ("the broker is away", away),
        ("no worker is known", nobody),
    ] {
        assert!(!is_lost(&evidence, &runs), "{what}");
    }
}

#[test]
fn an_entry_whose_runs_somebody_silent_takes_now_and_then_loses_none() {
    let runs = [false, true, false, true, false, true, true];

    assert!(!is_lost(&scene(), &runs));
}
