//! `on_silence`, with and without a Beat; hints of a Beat.

use super::*;
use crate::celery::beat::BeatView;
use crate::change::{Transition, Trigger};
use crate::incident::cause::Cause;
use crate::incident::consequence;
use crate::monitor::run::RunStatus;
use crate::monitor::transition::silence::{Silence, on_silence};
use crate::monitor::transition::{on_due_hint, on_pause, on_sent};

use PingKind::{Start, Success};

fn view(status: Status, last_seen: Option<f64>, deadline: Option<f64>) -> BeatView {
    BeatView {
        status,
        last_seen_at: last_seen.map(at),
        deadline_at: deadline.map(at),
        hung_at: None,
        sent_at: None,
        send_failed_at: None,
        lost_at: None,
        skewed_since: None,
        back_at: None,
    }
}

fn verdict(state: &mut MonitorState, beat: Option<&BeatView>, now: f64) -> Option<Trigger> {
    match on_silence(state, &Evidence::of_beat(beat.copied()), at(now), &[]) {
        Silence::Down { trigger, .. } => Some(trigger),
        Silence::NotYet
        | Silence::Hold
        | Silence::Settled(_)
        | Silence::Calm(_)
        | Silence::Unknown { .. } => None,
    }
}

#[test]
fn silence_trips_at_the_deadline_and_not_before() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, Success, 0.0);

    assert_eq!(
        on_silence(&mut state, &Evidence::default(), at(89.999_999), &[]),
        Silence::NotYet
    );
    let down = on_silence(&mut state, &Evidence::default(), at(90.0), &[]);

    let trigger = Trigger::Trouble(Cause::Missed);
    let transition = Transition {
        from: Status::Up,
        to: Status::Down,
        trigger,
        at: at(90.0),
    };
    assert_eq!(
        down,
        Silence::Down {
            transition: Some(transition),
            trigger: transition.trigger,
            consequence: consequence(&transition),
            part_of: None,
            is_named: false,
            overruns: Vec::new()
        }
    );
    assert_eq!(state.deadline_at, None);
    assert_eq!(
        on_silence(&mut state, &Evidence::default(), at(9_000.0), &[]),
        Silence::NotYet,
        "once"
    );
}

#[test]
fn what_is_down_or_paused_is_never_judged_whatever_deadline_a_row_holds() {
    for status in [Status::Down, Status::Paused] {
        let mut state = monitor(interval(60.0), 30.0, None);
        state.status = status;
        state.deadline_at = Some(at(10.0));

        assert_eq!(
            on_silence(&mut state, &Evidence::default(), at(20.0), &[]),
            Silence::NotYet
        );

        assert_eq!(
            (state.status, state.deadline_at),
            (status, None),
            "disarmed, or it is judged forever"
        );
    }
}

#[test]
fn a_missed_slot_is_blamed_on_beat_only_when_beat_has_not_reported_since() {
    let missed = Some(Trigger::Trouble(Cause::Missed));
    // Without more facts about an entry than that its Beat lives, the cause is unknown.
    let unknown = Some(Trigger::Trouble(Cause::Unknown));
    // The slot is at 60, the deadline at 90: (Beat then, verdict)
    let table = [
        (None, missed),
        (Some(view(Status::Up, Some(60.0), Some(200.0))), unknown),
        (Some(view(Status::Up, Some(85.0), Some(200.0))), unknown),
        (Some(view(Status::Up, Some(59.9), Some(135.0))), None),
        (
            Some(view(Status::Down, Some(59.9), None)),
            Some(Trigger::PartOf(Cause::BeatDown)),
        ),
        (Some(view(Status::Down, Some(61.0), None)), unknown),
        (
            Some(view(Status::Down, None, None)),
            Some(Trigger::PartOf(Cause::BeatDown)),
        ),
        (Some(view(Status::New, None, None)), unknown),
    ];
    for (beat, expected) in table {
        let mut state = entry(interval(60.0), 30.0, None);

        assert_eq!(verdict(&mut state, beat.as_ref(), 90.0), expected, "{beat:?}");

        let status = if expected.is_some() {
            Status::Down
        } else {
            Status::New
        };
        assert_eq!(state.status, status);
        assert_eq!(state.deadline_at.is_some(), is_armed(&state));
    }
}

#[test]
fn a_held_monitor_waits_for_the_verdict_on_beat_and_then_joins_or_trips_or_lives() {
    let held = || {
        let mut state = entry(interval(60.0), 30.0, None);
        let beat = view(Status::Up, Some(50.0), Some(125.0));
        assert_eq!(
            on_silence(&mut state, &Evidence::of_beat(Some(beat)), at(90.0), &[]),
            Silence::Hold
        );
        assert_eq!(state.deadline_at, Some(at(90.0)), "its own deadline stays");
        assert_eq!(state.judged_at(), Some(at(125.0) + crate::celery::blame::AFTER));
        state
    };

    let mut beat_died = held();
    let dead = view(Status::Down, Some(50.0), None);
    assert_eq!(
        verdict(&mut beat_died, Some(&dead), 127.0),
        Some(Trigger::PartOf(Cause::BeatDown))
    );

    let mut beat_lives = held();
    let alive = view(Status::Up, Some(110.0), Some(185.0));
    assert_eq!(
        verdict(&mut beat_lives, Some(&alive), 127.0),
        Some(Trigger::Trouble(Cause::Unknown))
    );

    let mut reported = held();
    ping(&mut reported, Success, 100.0);
    assert_eq!(
        (reported.status, reported.deadline_at, reported.hold_until),
        (Status::Up, Some(at(190.0)), None)
    );
}

#[test]
fn a_hold_always_lies_ahead_even_when_beats_own_deadline_has_passed_unjudged() {
    let mut state = entry(interval(60.0), 30.0, None);
    let beat = view(Status::Up, Some(10.0), Some(80.0));

    assert_eq!(
        on_silence(&mut state, &Evidence::of_beat(Some(beat)), at(90.0), &[]),
        Silence::Hold
    );

    assert_eq!(
        state.judged_at(),
        Some(at(90.0) + crate::celery::blame::AFTER),
        "or the sweep would spin"
    );
    let unknown = Some(Trigger::Trouble(Cause::Unknown));
    assert_eq!(verdict(&mut state, Some(&beat), 99.9), None);
    assert_eq!(
        verdict(&mut state, Some(&beat), 102.0),
        unknown,
        "the monitor does not wait for a Beat that cannot be judged"
    );
}

#[test]
fn an_overrun_is_its_own_trouble_even_while_beat_is_silent() {
    let mut state = entry(interval(60.0), 30.0, Some(100.0));
    ping_of(&mut state, 1, Start, 60.0);
    ping_of(&mut state, 2, Start, 140.0);
    let beat = view(Status::Down, Some(130.0), None);

    let Silence::Down {
        trigger, overruns, ..
    } = on_silence(&mut state, &Evidence::of_beat(Some(beat)), at(160.0), &[])
    else {
        panic!()
    };

    assert_eq!(trigger, Trigger::Trouble(Cause::Overrun));
    assert_eq!(
        overruns,
        vec![state.runs[0].key],
        "the second run is judged separately"
    );
    assert_eq!(state.runs[0].status, RunStatus::Overrun);
    assert!(state.runs[1].is_open());
}

#[test]
fn the_late_end_of_an_overrun_brings_the_monitor_up_and_gives_the_run_its_length() {
    let mut state = monitor(interval(3_600.0), 60.0, None);
    ping_of(&mut state, 1, Start, 0.0);
    assert!(matches!(
        on_silence(&mut state, &Evidence::default(), at(60.0), &[]),
        Silence::Down { .. }
    ));

    let effect = ping_of(&mut state, 1, Success, 500.0);

    assert_eq!(effect.transition.map(|t| t.to), Some(Status::Up));
    assert_eq!(state.runs[0].status, RunStatus::Overrun, "a verdict stays");
    assert_eq!(state.runs[0].duration, Some(seconds(500)));
    assert_eq!(state.last_duration, Some(seconds(500)));
    assert_eq!(state.deadline_at, Some(at(500.0 + 3_660.0)));
}

#[test]
fn a_hint_moves_what_is_to_come_and_never_excuses_a_slot_that_has_come() {
    // Every five minutes from noon, so due at 12:05: (hint, received at, due afterwards)
    let table = [
        (200.0, 10.0, 200.0),  // Beat's arithmetic wins
        (600.0, 10.0, 600.0),  // the slot after next is as far as a hint may go
        (700.0, 10.0, 300.0),  // not plausible
        (5.0, 10.0, 300.0),    // in the past
        (600.0, 300.0, 300.0), // 12:05 has come, and still needs a report
        (600.0, 300.5, 300.0),
    ];
    for (hint, alert_at, due) in table {
        let mut state = entry(cron("*/5 * * * *"), 30.0, None);
        on_due_hint(&mut state, Some(at(hint)), at(alert_at));
        assert_eq!(state.next_due_at, Some(at(due)), "hint {hint} at {alert_at}");
        assert_eq!(state.deadline_at, Some(at(due + 30.0)));
    }

    let mut paused = entry(cron("*/5 * * * *"), 30.0, None);
    assert!(on_pause(&mut paused, Trigger::Pause, at(1.0)).is_some());
    on_due_hint(&mut paused, Some(at(200.0)), at(10.0));
    assert_eq!((paused.next_due_at, paused.deadline_at), (Some(at(300.0)), None));
}

#[test]
fn a_hint_by_a_clock_a_little_off_means_our_slot() {
    for off in [-2.0, -0.2, 0.2, 2.0] {
        for longest in [None, Some(60.0)] {
            let mut state = entry(cron("*/5 * * * *"), 30.0, longest);
            on_due_hint(&mut state, Some(at(300.0 + off)), at(10.0));

            // Beat's clock is off by `off`, so the run of 12:05 starts that much off.
            ping_of(&mut state, 1, Start, 300.0 + off + 0.1);
            ping_of(&mut state, 1, Success, 300.0 + off + 0.1);

            assert_eq!(
                state.next_due_at,
                Some(at(600.0)),
                "{off} {longest:?}: 12:05 is satisfied, and only that"
            );
        }
    }
}

#[test]
fn a_slot_that_beat_has_sent_is_owed_even_when_it_is_a_moment_away_by_our_clock() {
    // Every ten minutes from noon: (received at, hint, due afterwards, due after the report at 12:10:03)
    let table = [
        (601.0, 1_200.0, 600.0, 1_200.0),
        (599.5, 1_200.0, 600.0, 1_200.0),
        (599.5, 1_199.5, 600.0, 1_200.0), // Beat's clock is half a second fast
        (570.0, 1_200.0, 600.0, 1_200.0), // as early as a report may be
        (569.0, 1_200.0, 1_200.0, 1_200.0), // too early: the sending of another slot
    ];
    for (alert_at, hint, due, then) in table {
        let mut state = entry(cron("*/10 * * * *"), 30.0, None);
        on_sent(&mut state, Some(at(hint)), at(alert_at));
        assert_eq!(state.next_due_at, Some(at(due)), "{hint} at {alert_at}");

        // Beat lists its schedule again before the report: the slot still needs one.
        on_due_hint(&mut state, Some(at(hint)), at(alert_at + 0.1));
        assert_eq!(state.next_due_at, Some(at(due)), "{hint} at {alert_at}, listed");

        ping(&mut state, PingKind::Success, 603.0);
        assert_eq!(state.next_due_at, Some(at(then)), "{hint} at {alert_at}");
    }
}

#[test]
fn what_only_beat_can_compute_may_be_put_off_until_a_few_seconds_before() {
    // All its hints stem from Beat's clock, so only network delay differs: (hint received at, due afterwards)
    for (alert_at, due) in [(594.9, 1_200.0), (595.0, 600.0), (600.0, 600.0)] {
        for hint in [Some(at(1_200.0)), None] {
            let rule = Schedule::from_json(&serde_json::json!({"kind": "hint", "class": "rrule"})).unwrap();
            let mut state = entry(rule, 30.0, None);
            on_due_hint(&mut state, Some(at(600.0)), at(1.0));

            on_sent(&mut state, hint, at(alert_at));

            let expected = if due == 600.0 { Some(at(600.0)) } else { hint };
            assert_eq!(state.next_due_at, expected, "{hint:?} at {alert_at}");
        }
    }
}

#[test]
fn a_hint_that_has_passed_is_not_taken_up_by_an_old_report() {
    // Every five minutes; runs may take an hour. 12:05 is started late, after Beat listed 12:10.
    let mut state = entry(cron("*/5 * * * *"), 400.0, Some(3_600.0));
    ping_of(&mut state, 1, Start, 0.5);
    on_due_hint(&mut state, Some(at(600.0)), at(420.0));
    ping_of(&mut state, 2, Start, 660.0);
    assert_eq!(state.next_due_at, Some(at(900.0)));

    // Its end is credited to its start, when 12:10 was still ahead.
    ping_of(&mut state, 1, Success, 720.0);

    assert_eq!(state.next_due_at, Some(at(900.0)));
}

#[test]
fn the_end_of_an_earlier_run_does_not_excuse_a_slot_that_is_owed() {
    let rule = Schedule::from_json(&serde_json::json!({"kind": "hint", "class": "rrule"})).unwrap();
    for schedule in [rule, cron("*/10 * * * *")] {
        // The run of 12:10 lasts until after 12:20. Beat sends 12:20, and that message is lost.
        let mut state = entry(schedule, 60.0, Some(3_600.0));
        on_due_hint(&mut state, Some(at(600.0)), at(1.0));
        on_sent(&mut state, Some(at(1_200.0)), at(600.1));
        ping_of(&mut state, 1, Start, 601.0);
        on_sent(&mut state, Some(at(1_800.0)), at(1_200.1));

        ping_of(&mut state, 1, Success, 1_230.0);

        assert_eq!(state.next_due_at, Some(at(1_200.0)));
        assert_eq!(
            verdict(&mut state, None, 1_260.0),
            Some(Trigger::Trouble(Cause::Missed))
        );
    }
}

#[test]
fn hints_at_the_ends_of_the_calendar_are_not_believed() {
    let rule = Schedule::from_json(&serde_json::json!({"kind": "hint", "class": "rrule"})).unwrap();
    for schedule in [rule, cron("*/5 * * * *"), interval(60.0)] {
        let before = entry(schedule, 31_622_400.0, None);
        for hint in [
            DateTime::<Utc>::MIN_UTC,
            DateTime::<Utc>::MAX_UTC,
            at(4e9),
            at(-1e9),
        ] {
            for take in [on_due_hint, on_sent] {
                let mut state = before.clone();
                take(&mut state, Some(hint), at(10.0));
                assert_eq!(state, before, "{hint}");
            }
        }
    }
}
