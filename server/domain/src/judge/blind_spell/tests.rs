use super::*;
use crate::celery::blame::Evidence;
use crate::celery::switch::{self, Switch};
use crate::change::Trigger;
use crate::incident::cause::Cause;
use crate::monitor::ping::PingKind::{Start, Success};
use crate::monitor::status::Status;
use crate::monitor::transition::silence::{Silence, on_silence};
use crate::monitor::transition::tests::{at, cron, interval, monitor, ping, ping_of};

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
        ((0.0, 100.5), 160.5),   // overlapped the window by half a second: the deadline moves by as much
        ((90.0, 130.0), 190.0),  // the first half of the window
        ((110.0, 120.0), 180.0), // within the window
        ((150.0, 170.0), 230.0), // across the window's end
        ((0.0, 900.0), 960.0),   // covers the whole window
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
        "no process ever listened: a fresh installation"
    );
    assert!(!is_blind(Some(at(0.0)), at(2.5)));
    assert!(is_blind(Some(at(0.0)), at(2.6)));
    assert!(!is_blind(Some(at(3_600.0)), at(0.0)), "the clock stepped back");
}

#[test]
fn a_monitor_gets_one_grace_after_a_spell_that_began_in_its_grace_and_then_it_trips() {
    let spells = [spell(70.0, 400.0)];
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
        Silence::Down { trigger, .. } => assert_eq!(trigger, Trigger::Trouble(Cause::Missed)),
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
    // The spell is shorter than a run may take.
    let spells = [spell(1_000.0, 1_800.0)];
    let mut state = monitor(cron("0 * * * *"), 300.0, Some(900.0));
    ping(&mut state, Success, 0.0);
    ping_of(&mut state, 1, Start, 600.0);

    let verdict = on_silence(&mut state, &Evidence::default(), at(1_801.0), &spells);
    assert_eq!((verdict, state.deadline_at), (Silence::NotYet, Some(at(2_100.0))));

    let verdict = on_silence(&mut state, &Evidence::default(), at(2_100.0), &spells);
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

#[test]
fn what_lies_wholly_in_a_spell_is_unknown_and_the_next_slot_is_awaited() {
    // (schedule, grace, spell), whether this slot is unknown, and the next deadline. All monitors reported at noon.
    let day = 86_400.0;
    let table = [
        (
            "an interval counts from the spell's end",
            interval(300.0),
            20.0,
            (100.0, day),
            true,
            day + 320.0,
        ),
        (
            "an hourly crontab waits for the next hour",
            cron("0 * * * *"),
            30.0,
            (3_000.0, 7_000.0),
            true,
            7_230.0,
        ),
        (
            "a spell of a minute around the hour",
            cron("0 * * * *"),
            30.0,
            (3_590.0, 3_650.0),
            true,
            7_230.0,
        ),
        (
            "a spell of exactly its window",
            cron("0 * * * *"),
            30.0,
            (3_599.0, 3_630.0),
            true,
            7_230.0,
        ),
        (
            "a spell as long as the grace",
            cron("0 * * * *"),
            30.0,
            (3_600.0, 3_630.0),
            false,
            3_660.0,
        ),
        (
            "a short spell in the grace",
            cron("0 * * * *"),
            30.0,
            (3_610.0, 3_620.0),
            false,
            3_650.0,
        ),
        (
            "a spell that ended in the grace",
            cron("0 * * * *"),
            30.0,
            (3_000.0, 3_615.0),
            false,
            3_645.0,
        ),
        (
            "a spell that began in the grace",
            cron("0 * * * *"),
            30.0,
            (3_615.0, 9_000.0),
            false,
            9_030.0,
        ),
        (
            "a slot after the spell",
            cron("0 * * * *"),
            30.0,
            (60.0, 3_000.0),
            false,
            3_630.0,
        ),
    ];
    for (what, schedule, grace, (started, ended), is_unknown, deadline) in table {
        let mut state = monitor(schedule, grace, None);
        ping(&mut state, Success, 0.0);
        let spells = [spell(started, ended)];

        let verdict = on_silence(&mut state, &Evidence::default(), at(ended), &spells);

        let expected = if is_unknown {
            Silence::Unknown {
                spell: spells[0],
                runs: Vec::new(),
            }
        } else {
            Silence::NotYet
        };
        assert_eq!(verdict, expected, "{what}");
        assert_eq!(
            (state.status, state.deadline_at),
            (Status::Up, Some(at(deadline))),
            "{what}"
        );
        // After that the monitor is judged as usual.
        let before = on_silence(
            &mut state.clone(),
            &Evidence::default(),
            at(deadline - 0.1),
            &spells,
        );
        assert_eq!(before, Silence::NotYet, "{what}");
        let verdict = on_silence(&mut state, &Evidence::default(), at(deadline), &spells);
        assert!(matches!(verdict, Silence::Down { .. }), "{what}: {verdict:?}");
    }
}

#[test]
fn two_spells_swallow_two_slots_one_after_the_other() {
    let mut state = monitor(cron("0 * * * *"), 30.0, None);
    ping(&mut state, Success, 0.0);
    let spells = [spell(7_000.0, 8_000.0), spell(3_000.0, 4_000.0)];

    let verdict = on_silence(&mut state, &Evidence::default(), at(8_001.0), &spells);

    assert!(matches!(verdict, Silence::Unknown { .. }), "{verdict:?}");
    assert_eq!(state.deadline_at, Some(at(10_830.0)));
}

#[test]
fn who_reports_after_the_spell_is_known() {
    let mut state = monitor(interval(300.0), 20.0, None);
    ping(&mut state, Success, 0.0);
    ping(&mut state, Success, 86_401.0);

    let verdict = on_silence(
        &mut state,
        &Evidence::default(),
        at(86_402.0),
        &[spell(100.0, 86_400.0)],
    );

    assert_eq!(
        (verdict, state.deadline_at),
        (Silence::NotYet, Some(at(86_721.0)))
    );
}

#[test]
fn a_run_that_should_have_ended_in_a_spell_longer_than_itself_is_closed_without_an_alert() {
    let mut state = monitor(cron("0 * * * *"), 300.0, Some(900.0));
    ping(&mut state, Success, 0.0);
    ping_of(&mut state, 1, Start, 600.0);
    let key = state.runs[0].key;
    let spells = [spell(700.0, 87_000.0)];

    let verdict = on_silence(&mut state, &Evidence::default(), at(87_001.0), &spells);

    assert_eq!(
        verdict,
        Silence::Unknown {
            spell: spells[0],
            runs: vec![key]
        }
    );
    assert_eq!((state.status, state.open_runs()), (Status::Up, 0));
    // Its end is reported late: the run succeeded.
    let effect = ping_of(&mut state, 1, Success, 87_010.0);
    assert_eq!((effect.transition, state.status), (None, Status::Up));
}

#[test]
fn what_is_overdue_beside_what_is_unknown_is_judged_at_the_next_judgement() {
    let mut state = monitor(cron("0 * * * *"), 30.0, Some(40_000.0));
    ping(&mut state, Success, 0.0);
    ping_of(&mut state, 1, Start, 300.0);
    // A run may take longer than this spell, and was overdue when the spell began. So the overrun is reported.
    let spells = [spell(3_500.0, 7_000.0)];

    let first = on_silence(&mut state, &Evidence::default(), at(40_400.0), &spells);
    let second = on_silence(&mut state, &Evidence::default(), at(40_400.0), &spells);

    assert!(matches!(first, Silence::Unknown { .. }), "{first:?}");
    assert!(matches!(second, Silence::Down { .. }), "{second:?}");
}

#[test]
fn a_monitor_that_only_ever_began_is_not_armed_any_more() {
    let mut state = monitor(interval(3_600.0), 60.0, Some(900.0));
    ping_of(&mut state, 1, Start, 0.0);

    let verdict = on_silence(
        &mut state,
        &Evidence::default(),
        at(90_001.0),
        &[spell(100.0, 90_000.0)],
    );

    assert!(matches!(verdict, Silence::Unknown { .. }), "{verdict:?}");
    assert_eq!((state.status, state.deadline_at), (Status::New, None));
}
