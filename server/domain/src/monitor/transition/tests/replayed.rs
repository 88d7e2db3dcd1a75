//! Signals from the spools of several processes: the order of receipt decides, in whatever order they are replayed.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::change::Trigger;
use crate::incident::Consequence;
use crate::monitor::flapping::Flaps;
use crate::monitor::run::Run;
use crate::monitor::transition::{on_pause, on_resume};

use PingKind::{Fail, Start, Success};

use crate::monitor::transition::silence;

/// From a spool.
fn replayed(signal: Signal) -> Signal {
    Signal {
        is_replayed: true,
        ..signal
    }
}

/// An open run: its id, its beginning, its deadline.
type Open = (Option<Uuid>, Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// The parts of the state that are equal for every order of replay.
#[derive(Debug, PartialEq)]
struct Verdict {
    status: Status,
    is_alerted: bool,
    ping_count: i64,
    last_ping_at: Option<DateTime<Utc>>,
    last_success_at: Option<DateTime<Utc>>,
    decided_at: Option<DateTime<Utc>>,
    plain_end_at: Option<DateTime<Utc>>,
    /// Leaves out runs that overran before the newest decision. The return from `down` closes such a run. If its start is
    /// replayed later, the server does not know that the run existed.
    open_runs: BTreeSet<Open>,
}

fn receive(state: &mut MonitorState, signal: &Signal) {
    let _ = on_ping(state, signal);
}

/// Applies signals as a writer does, and follows the incident as `services/incident.rs` does.
fn fold(mut state: MonitorState, signals: &[Signal]) -> (Verdict, MonitorState) {
    let mut is_alerted = false;
    for signal in signals {
        // Whether it flaps follows the order of writing.
        state.flaps = Flaps::default();
        let effect = on_ping(&mut state, signal);
        match effect.consequence {
            Consequence::Open(_) => is_alerted = true,
            Consequence::Resolve => is_alerted = false,
            Consequence::Join | Consequence::Calm { .. } | Consequence::Nothing => {}
        }
    }
    let is_in_time = |run: &&Run| run.is_open() && run.deadline_at > state.decided_at;
    let open = state.runs.iter().filter(is_in_time);
    let verdict = Verdict {
        status: state.status,
        is_alerted,
        ping_count: state.ping_count,
        last_ping_at: state.last_ping_at,
        last_success_at: state.last_success_at,
        decided_at: state.decided_at,
        plain_end_at: state.plain_end_at,
        open_runs: open
            .map(|run| (run.run_id, run.started_at, run.deadline_at))
            .collect(),
    };
    (verdict, state)
}

#[test]
fn two_signals_in_either_order_give_the_verdict_of_the_sorted_ones() {
    for (pair, status) in [
        ([Success, Fail], Status::Down),
        ([Fail, Success], Status::Up),
        ([Start, Success], Status::Up),
        ([Start, Fail], Status::Down),
    ] {
        for run in [None, Some(1)] {
            let [first, second] = [(pair[0], 1.0), (pair[1], 2.0)].map(|(kind, seconds)| {
                let of_run = run.map(|run| signal_of(run, kind, at(seconds)));
                replayed(of_run.unwrap_or_else(|| signal(kind, at(seconds))))
            });
            let fresh = monitor(interval(60.0), 30.0, None);

            let (sorted, _) = fold(fresh.clone(), &[first.clone(), second.clone()]);
            let (reversed, state) = fold(fresh, &[second, first]);

            let case = format!("{pair:?}, run {run:?}");
            assert_eq!(sorted.status, status, "{case}");
            assert_eq!(reversed, sorted, "{case}");
            assert_eq!(reversed.is_alerted, status == Status::Down, "{case}");
            assert_eq!(state.open_runs(), 0, "{case}: it would be a false OVERRUN");
        }
    }
}

#[test]
fn a_late_start_gives_its_run_the_length() {
    let mut state = monitor(interval(60.0), 30.0, None);
    receive(&mut state, &replayed(signal_of(1, Success, at(20.0))));
    receive(&mut state, &replayed(signal_of(1, Start, at(5.0))));
    // The client repeated its start: the newest one is the beginning.
    receive(&mut state, &replayed(signal_of(1, Start, at(8.0))));

    assert_eq!(state.runs.len(), 1);
    assert_eq!(
        (state.runs[0].started_at, state.runs[0].duration),
        (Some(at(8.0)), Some(seconds(12)))
    );
}

#[test]
fn an_id_that_is_used_again_has_each_late_start_at_the_end_that_followed_it() {
    let mut state = monitor(interval(60.0), 30.0, None);
    for seconds in [20.0, 10.0] {
        receive(&mut state, &replayed(signal_of(1, Success, at(seconds))));
    }
    for seconds in [5.0, 15.0] {
        receive(&mut state, &replayed(signal_of(1, Start, at(seconds))));
    }

    let mut runs: Vec<_> = state
        .runs
        .iter()
        .map(|run| (run.started_at, run.finished_at))
        .collect();
    runs.sort();
    let expected = [(5.0, 10.0), (15.0, 20.0)].map(|(from, to)| (Some(at(from)), Some(at(to))));
    assert_eq!(runs, expected);
}

#[test]
fn a_named_start_is_ended_by_a_later_end_without_a_name_as_in_order() {
    let mut state = monitor(interval(60.0), 30.0, None);
    receive(&mut state, &replayed(signal(Success, at(20.0))));
    receive(&mut state, &replayed(signal_of(1, Start, at(5.0))));
    assert_eq!(state.open_runs(), 0);

    receive(&mut state, &replayed(signal_of(2, Start, at(25.0))));
    assert_eq!(state.open_runs(), 1);
}

#[test]
fn clocks_of_two_hosts_that_differ_a_little_change_no_verdict_of_what_is_written_at_once() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, Fail, 10.0);
    // 2 s later, at a host whose clock is 4 s slow.
    ping(&mut state, Success, 8.0);
    assert_eq!(state.status, Status::Up);

    ping_of(&mut state, 1, Start, 20.0);
    ping_of(&mut state, 1, Success, 19.0);
    ping(&mut state, Start, 22.0);
    ping(&mut state, Success, 21.0);
    assert_eq!(state.open_runs(), 0);

    // A later signal overtook a signal that waited this long for the writer.
    ping(&mut state, Fail, 18.0);
    assert_eq!(state.status, Status::Up);
}

#[test]
fn what_was_received_before_a_person_paused_or_resumed_changes_nothing() {
    for kind in [Success, Fail] {
        let mut state = monitor(interval(60.0), 30.0, None);
        ping(&mut state, Success, 1.0);
        let _ = on_pause(&mut state, Trigger::Pause, at(10.0));
        receive(&mut state, &replayed(signal(kind, at(5.0))));
        assert_eq!(state.status, Status::Paused, "{kind:?}");

        let _ = on_resume(&mut state, Trigger::Resume, at(20.0));
        receive(&mut state, &replayed(signal(kind, at(15.0))));
        assert_eq!(state.status, Status::New, "{kind:?}");
        receive(&mut state, &replayed(signal(kind, at(25.0))));
        assert_ne!(state.status, Status::New, "{kind:?}");
    }
}

#[test]
fn a_success_that_was_received_before_its_silence_was_judged_ends_that_verdict() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, Success, 0.0);
    let missed = silence::on_silence(&mut state, &Evidence::default(), at(95.0), &[]);
    assert!(matches!(
        missed,
        crate::monitor::transition::silence::Silence::Down { .. }
    ));

    receive(&mut state, &replayed(signal(Success, at(60.0))));

    assert_eq!(state.status, Status::Up);
}

#[test]
fn a_clock_that_is_stepped_back_leaves_no_decision_in_times_to_come() {
    let mut state = monitor(interval(60.0), 30.0, None);
    ping(&mut state, Success, 3_600.0);

    crate::monitor::transition::forget_times_to_come(&mut state, at(0.0));
    ping(&mut state, Fail, 1.0);

    assert_eq!(state.status, Status::Down);
}

#[test]
fn a_report_of_an_earlier_try_leaves_the_next_one_its_time() {
    let event = |retries: i32, seconds: f64| {
        let mut start = replayed(signal_of(1, Start, at(seconds)));
        start.source = Source::Event;
        start.detail.run.retries = retries;
        start
    };
    let mut state = entry(interval(3_600.0), 30.0, Some(60.0));
    receive(&mut state, &event(1, 300.0));
    receive(&mut state, &event(0, 0.0));

    let run = &state.runs[0];
    assert_eq!(
        (run.started_at, run.deadline_at, run.detail.retries),
        (Some(at(0.0)), Some(at(360.0)), 1)
    );
}

/// How the client of a case names its runs. No client names only some of them: which run an end without an id closes
/// then depends on what is known of the other runs.
#[derive(Debug, Clone, Copy)]
enum Client {
    Plain,
    /// The client uses ids again.
    Named,
    /// Each run begins and ends once at most.
    Sdk,
}

fn stream(client: Client, steps: &[(PingKind, u128, u32)]) -> Vec<Signal> {
    let mut seen = BTreeSet::new();
    let mut ended = BTreeSet::new();
    let mut now = 0;
    let mut signals = Vec::new();
    for (kind, run, later) in steps {
        now += i64::from(*later) + 1;
        let received_at = at(0.0) + TimeDelta::milliseconds(now);
        let one = match client {
            Client::Plain => signal(*kind, received_at),
            Client::Named => signal_of(run % 3, *kind, received_at),
            Client::Sdk => {
                let is_first = if *kind == Start {
                    !ended.contains(run) && seen.insert((*run, true))
                } else {
                    ended.insert(*run)
                };
                if !is_first {
                    continue;
                }
                Signal {
                    source: Source::Event,
                    ..signal_of(*run, *kind, received_at)
                }
            }
        };
        signals.push(replayed(one));
    }
    signals
}

/// Two streams, each in its order, mixed.
fn mixed(signals: &[Signal], holders: &[bool], turns: &[bool]) -> Vec<Signal> {
    let of = |holder: bool| {
        let held = signals.iter().zip(holders).filter(move |(_, is)| **is == holder);
        held.map(|(signal, _)| signal.clone())
    };
    let (mut one, mut other) = (of(true).peekable(), of(false).peekable());
    let mut order = Vec::new();
    for turn in turns.iter().cycle() {
        let next = match (one.peek().is_some(), other.peek().is_some()) {
            (false, false) => break,
            (true, false) => one.next(),
            (false, true) => other.next(),
            (true, true) if *turn => one.next(),
            (true, true) => other.next(),
        };
        order.extend(next);
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_of_two_ordered_streams_gives_the_verdict_of_the_sorted_one(
        client in prop_oneof![Just(Client::Plain), Just(Client::Named), Just(Client::Sdk)],
        by_beat in any::<bool>(),
        longest in proptest::option::of(1.0..900.0_f64),
        by_cron in any::<bool>(),
        steps in proptest::collection::vec(
            (prop_oneof![Just(Start), Just(Success), Just(Fail)], 0_u128..12, prop_oneof![0_u32..50, 0_u32..200_000]),
            1..24,
        ),
        holders in proptest::collection::vec(any::<bool>(), 24),
        turns in proptest::collection::vec(any::<bool>(), 24),
    ) {
        let schedule = if by_cron { cron("*/5 * * * *") } else { interval(60.0) };
        let fresh = MonitorState::fresh(expectation(schedule, 30.0, longest), by_beat, at(0.0));
        let sorted = stream(client, &steps);
        let replay = mixed(&sorted, &holders, &turns);

        let (expected, one) = fold(fresh.clone(), &sorted);
        let (found, several) = fold(fresh, &replay);

        prop_assert_eq!(&found, &expected, "{:#?}", replay);
        // With a longest run, an end credits its run's start, which may still be unknown.
        if !by_cron && longest.is_none() {
            prop_assert_eq!(several.next_due_at, one.next_due_at);
        }
    }
}
