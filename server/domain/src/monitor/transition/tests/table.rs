//! `on_ping`, case by case.

use super::*;
use crate::change::Trigger;
use crate::incident::Consequence;
use crate::incident::cause::Cause;
use crate::monitor::transition::silence::{Silence, on_silence};
use crate::monitor::transition::{on_pause, on_resume, on_settings_change};

use PingKind::{Fail, Log, Start, Success};
use Status::{Down, New, Paused, Up};

/// A monitor of a minute, brought into that status by signals.
fn in_status(status: Status) -> MonitorState {
    let mut state = monitor(interval(60.0), 30.0, None);
    lead_to(&mut state, status);
    state
}

fn lead_to(state: &mut MonitorState, status: Status) {
    match status {
        New => {}
        Up => drop(ping(state, Success, 0.0)),
        Down => drop(ping(state, Fail, 0.0)),
        Paused => assert!(on_pause(state, Trigger::Pause, at(0.0)).is_some()),
    }
    assert_eq!(state.status, status);
}

#[test]
fn each_kind_of_ping_leads_from_each_status_where_the_table_says() {
    // (before, kind, after, armed after)
    let table = [
        (New, Start, New, true),
        (New, Success, Up, true),
        (New, Fail, Down, false),
        (New, Log, New, false),
        (Up, Start, Up, true),
        (Up, Success, Up, true),
        (Up, Fail, Down, false),
        (Up, Log, Up, true),
        (Down, Start, Down, false),
        (Down, Success, Up, true),
        (Down, Fail, Down, false),
        (Down, Log, Down, false),
        (Paused, Start, Paused, false),
        (Paused, Success, Up, true),
        (Paused, Fail, Down, false),
        (Paused, Log, Paused, false),
    ];
    for with_run_id in [false, true] {
        for (before, kind, after, armed) in table {
            let mut state = in_status(before);

            let signal = if with_run_id {
                signal_of(7, kind, at(10.0))
            } else {
                signal(kind, at(10.0))
            };
            let effect = on_ping(&mut state, &signal);

            let case = format!("{before:?} {kind:?} run id: {with_run_id}");
            let changed = (before != after).then_some((before, after));
            assert_eq!(state.status, after, "{case}");
            assert_eq!(state.deadline_at.is_some(), armed, "{case}");
            assert_eq!(effect.transition.map(|t| (t.from, t.to)), changed, "{case}");
            assert_eq!(state.last_ping_at, Some(at(10.0)), "{case}");
            if let Some(transition) = effect.transition {
                let trigger = if kind == Fail {
                    Trigger::Trouble(Cause::Failed)
                } else {
                    Trigger::Report
                };
                assert_eq!((transition.trigger, transition.at), (trigger, at(10.0)), "{case}");
            }
        }
    }
}

#[test]
fn a_paused_monitor_ignores_events_and_a_retired_one_ignores_everything() {
    let sources = [(Source::Event, true), (Source::Http, false)];
    for (source, ignored_when_paused) in sources {
        for retired in [false, true] {
            for kind in [Start, Success, Fail, Log] {
                let mut state = in_status(Paused);
                state.retired = retired;

                let effect = on_ping(
                    &mut state,
                    &Signal {
                        source,
                        ..signal_of(1, kind, at(5.0))
                    },
                );

                let stays = retired || ignored_when_paused || matches!(kind, Start | Log);
                assert_eq!(
                    state.status == Paused,
                    stays,
                    "retired: {retired}, {source:?} {kind:?}"
                );
                assert_eq!(effect.transition.is_none(), stays);
                assert_eq!(state.ping_count, 1, "it is stored all the same");
            }
        }
    }
}

#[test]
fn an_entry_of_a_beat_is_armed_before_its_first_report_and_a_persons_monitor_is_not() {
    assert_eq!(entry(interval(60.0), 30.0, None).deadline_at, Some(at(90.0)));
    assert_eq!(monitor(interval(60.0), 30.0, None).deadline_at, None);
}

#[test]
fn a_failure_of_a_monitor_that_is_down_already_is_said_to_be_one() {
    let mut state = entry(interval(60.0), 30.0, None);

    for (kind, seconds, expected) in [
        (Fail, 1.0, false),
        (Fail, 2.0, true),
        (Start, 3.0, false),
        (Success, 4.0, false),
        (Fail, 5.0, false),
    ] {
        let effect = ping(&mut state, kind, seconds);
        assert_eq!(
            effect.transition.is_none() && effect.consequence == Consequence::Open(Cause::Failed),
            expected,
            "{kind:?} at {seconds}"
        );
    }
}

#[test]
fn a_run_that_goes_on_beyond_a_missed_slot_does_not_miss_it_twice_when_it_ends_well() {
    // Hourly, 5 min of grace, a run may take 2 h; the one of noon takes 90 min, so nothing starts at 13:00.
    let mut state = monitor(cron("0 * * * *"), 300.0, Some(7_200.0));
    ping(&mut state, Success, 0.0);
    ping_of(&mut state, 1, Start, 3.0);
    assert_eq!(state.deadline_at, Some(at(3_900.0)));
    assert!(matches!(
        on_silence(&mut state, &Evidence::default(), at(3_900.0), &[]),
        Silence::Down { .. }
    ));

    ping_of(&mut state, 1, Success, 5_400.0);

    assert_eq!(state.status, Up);
    assert_eq!(state.next_due_at, Some(at(7_200.0)), "13:00 has had its incident");
    assert_eq!(state.deadline_at, Some(at(7_500.0)));
}

#[test]
fn runs_that_passed_their_deadline_while_nobody_judged_them_do_not_trip_the_recovered_monitor() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, Fail, 0.0);
    // The message begins again and again, and its process is killed each time.
    for run in 1..=5_u32 {
        ping_of(&mut state, run.into(), Start, 60.0 * f64::from(run));
    }

    let effect = ping_of(&mut state, 6, Success, 500.0);

    assert_eq!(state.deadline_at, Some(at(590.0)));
    assert_eq!(state.open_runs(), 0);
    assert_eq!(effect.runs.len(), 6, "all changed runs must be written");
}

#[test]
fn a_run_still_within_its_deadline_is_judged_after_the_recovery_too() {
    let mut state = monitor(interval(600.0), 60.0, None);
    ping(&mut state, Fail, 0.0);
    ping_of(&mut state, 1, Start, 100.0);

    ping_of(&mut state, 2, Success, 110.0);

    assert_eq!(
        state.deadline_at,
        Some(at(160.0)),
        "start + grace of the remaining run"
    );
}

#[test]
fn pausing_disarms_and_resuming_expects_anew() {
    let mut state = in_status(Up);
    ping_of(&mut state, 1, Start, 10.0);

    let paused = on_pause(&mut state, Trigger::Pause, at(20.0)).unwrap();
    assert_eq!((paused.from, paused.to, state.deadline_at), (Up, Paused, None));
    assert_eq!(
        on_pause(&mut state, Trigger::Pause, at(21.0)),
        None,
        "a second pause changes nothing"
    );

    let resumed = on_resume(&mut state, Trigger::Resume, at(86_400.0)).unwrap();
    assert_eq!((resumed.from, resumed.to), (Paused, New));
    assert_eq!(state.next_due_at, Some(at(86_460.0)));
    assert_eq!(
        state.deadline_at, None,
        "as if it had never reported: the run of yesterday trips nothing"
    );
    assert_eq!(
        on_resume(&mut state, Trigger::Resume, at(86_401.0)),
        None,
        "nothing to resume"
    );
}

#[test]
fn a_run_that_hung_since_before_beat_fell_silent_is_reported_when_beat_is_back() {
    let mut state = entry(interval(600.0), 60.0, Some(900.0));
    ping_of(&mut state, 1, Start, 600.0);
    let silent = crate::celery::beat::BeatView {
        status: Down,
        last_seen_at: Some(at(610.0)),
        deadline_at: None,
        hung_at: None,
        sent_at: None,
        send_failed_at: None,
        lost_at: None,
        skewed_since: None,
        back_at: None,
    };
    assert!(matches!(
        on_silence(&mut state, &Evidence::of_beat(Some(silent)), at(1_260.0), &[]),
        Silence::Down { .. }
    ));

    assert!(on_resume(&mut state, Trigger::Restored, at(2_000.0)).is_some());

    let Silence::Down {
        trigger, overruns, ..
    } = on_silence(&mut state, &Evidence::of_beat(Some(silent)), at(2_000.0), &[])
    else {
        panic!()
    };
    assert_eq!((trigger, overruns.len()), (Trigger::Trouble(Cause::Overrun), 1));
}

#[test]
fn a_retired_entry_cannot_be_resumed() {
    let mut state = entry(interval(60.0), 30.0, None);
    assert!(on_pause(&mut state, Trigger::Retire, at(1.0)).is_some());
    state.retired = true;

    assert_eq!(on_resume(&mut state, Trigger::Resume, at(2.0)), None);
    assert_eq!(
        (state.status, state.deadline_at),
        (Paused, None),
        "its signals change nothing: it must not be judged"
    );
}

#[test]
fn a_change_of_settings_never_raises_an_alarm_by_itself() {
    let schedules = [
        interval(60.0),
        interval(3_600.0),
        cron("*/5 * * * *"),
        cron("0 3 * * *"),
    ];
    let others = [
        (1.0, None),
        (1.0, Some(1.0)),
        (600.0, None),
        (60.0, Some(7_200.0)),
    ];
    for status in [New, Up, Down, Paused] {
        for before in &schedules {
            for after in &schedules {
                for (grace, longest) in others {
                    let mut state = monitor(before.clone(), 7_200.0, None);
                    lead_to(&mut state, status);
                    ping_of(&mut state, 1, Start, 1.0);
                    // Past its due and within the grace; the run has been open for an hour and a half.
                    let now = at(5_400.0);

                    on_settings_change(&mut state, expectation(after.clone(), grace, longest), now);

                    let case = format!("{status:?} {before:?} {after:?} {grace}");
                    assert_eq!(state.status, status);
                    assert!(state.deadline_at.is_none_or(|deadline| deadline > now), "{case}");
                    assert_eq!(state.deadline_at.is_some(), is_armed(&state), "{case}");
                }
            }
        }
    }
}
