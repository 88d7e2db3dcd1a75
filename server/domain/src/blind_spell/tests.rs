use super::*;
use crate::cause::Cause;
use crate::evidence::Evidence;
use crate::ping::PingKind::{Start, Success};
use crate::status::Status;
use crate::switch::{self, Switch};
use crate::transition::tests::{at, cron, interval, monitor, ping, ping_of};
use crate::transition::{Silence, Trigger, on_silence};

fn spell(started: f64, ended: f64) -> BlindSpell {
    BlindSpell {
        started_at: at(started),
        ended_at: at(ended),
    }
}

#[test]
fn a_deadline_moves_when_its_report_may_have_come_while_we_were_blind() {
    // The window is from 100 to 160, the grace 60: (spell, deadline)
    let table = [
        ((0.0, 99.0), 160.0),    // over before a report could come
        ((0.0, 100.5), 160.5),   // reached into the window by half a second: that much longer
        ((90.0, 130.0), 190.0),  // the first half of the window
        ((110.0, 120.0), 180.0), // within
        ((150.0, 170.0), 230.0), // over its end
        ((0.0, 900.0), 960.0),   // all of it
        ((160.0, 170.0), 160.0), // began when the deadline had passed
    ];
    for ((started, ended), expected) in table {
        let fair = fair_deadline(
            at(160.0),
            at(100.0),
            TimeDelta::seconds(60),
            &[spell(started, ended)],
        );
        assert_eq!(fair, at(expected), "{started} to {ended}");
    }
    let several = [spell(150.0, 170.0), spell(110.0, 120.0)];
    assert_eq!(
        fair_deadline(at(160.0), at(100.0), TimeDelta::seconds(60), &several),
        at(230.0)
    );
}

#[test]
fn we_are_blind_after_more_than_two_silent_seconds() {
    assert!(
        !is_blind(None, at(0.0)),
        "nobody ever listened: a fresh installation"
    );
    assert!(!is_blind(Some(at(0.0)), at(2.5)));
    assert!(is_blind(Some(at(0.0)), at(2.6)));
    assert!(!is_blind(Some(at(3_600.0)), at(0.0)), "the clock was set back");
}

#[test]
fn a_monitor_gets_one_grace_after_the_spell_and_then_it_trips() {
    let spells = [spell(50.0, 400.0)];
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, Success, 0.0);

    let during = on_silence(&mut state, &Evidence::default(), at(401.0), &spells);
    assert_eq!((during, state.deadline_at), (Silence::NotYet, Some(at(430.0))));
    let mut reporting = state.clone();
    ping(&mut reporting, Success, 420.0);
    assert_eq!(
        on_silence(&mut reporting, &Evidence::default(), at(430.0), &spells),
        Silence::NotYet
    );

    match on_silence(&mut state, &Evidence::default(), at(430.0), &spells) {
        Silence::Down { transition, .. } => assert_eq!(transition.trigger, Trigger::Trouble(Cause::Missed)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_spell_that_was_over_before_anything_was_due_excuses_nothing() {
    let mut state = monitor(cron("0 * * * *"), 60.0, None);
    ping(&mut state, Success, 0.0);

    let verdict = on_silence(
        &mut state,
        &Evidence::default(),
        at(3_660.0),
        &[spell(600.0, 1_200.0)],
    );

    assert!(matches!(verdict, Silence::Down { .. }), "{verdict:?}");
}

#[test]
fn the_end_of_a_run_may_have_come_while_we_were_blind() {
    let spells = [spell(1_000.0, 2_000.0)];
    let mut state = monitor(cron("0 * * * *"), 300.0, Some(900.0));
    ping(&mut state, Success, 0.0);
    ping_of(&mut state, 1, Start, 600.0);

    let verdict = on_silence(&mut state, &Evidence::default(), at(2_001.0), &spells);
    assert_eq!((verdict, state.deadline_at), (Silence::NotYet, Some(at(2_300.0))));

    let verdict = on_silence(&mut state, &Evidence::default(), at(2_300.0), &spells);
    assert!(
        matches!(&verdict, Silence::Down { overruns, .. } if overruns.len() == 1),
        "{verdict:?}"
    );
}

#[test]
fn a_beat_gets_its_whole_patience_after_the_spell() {
    let mut state = Switch {
        status: Status::Up,
        period_seconds: 15.0,
        grace_seconds: 60.0,
        last_seen_at: Some(at(0.0)),
        deadline_at: Some(at(75.0)),
        trouble: None,
        since: None,
    };
    let spells = [spell(10.0, 100.0)];

    assert_eq!(
        switch::on_silence(&mut state, Cause::BeatDown, at(101.0), &spells),
        None
    );
    assert_eq!(state.deadline_at, Some(at(175.0)));
    assert!(switch::on_silence(&mut state, Cause::BeatDown, at(175.0), &spells).is_some());
}
