//! "A healthy system never pages" (DESIGN 11.3): months of clients that do their work, judged at every instant.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::monitor::run::Run;
use crate::monitor::transition::{on_due_hint, on_sent};

/// How a client reports its work.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// One success a slot.
    Plain,
    /// A start and its end; the run is shorter than half the grace, which bounds it.
    Bounded,
    /// A start and its end, under a run id; the longest run is set and may reach over the next slots.
    Long,
}

/// When Beat sends the hint of the next slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// No hint: there is no Beat.
    None,
    /// When Beat sends the task, before the report.
    Sent,
    /// When Beat lists its schedule, after the report.
    Listed,
}

/// A separate random generator, so that proptest generates one number for months of jitter.
struct Dice(u64);

impl Dice {
    /// −1 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
    }
}

const SCHEDULES: usize = 13;

fn schedule(pick: usize, zone: &str) -> Schedule {
    let cron = |expression: &str| Schedule::cron(expression, zone).unwrap();
    let celery = |minute: &str, hour: &str| {
        let crontab = json!({"kind": "celery", "minute": minute, "hour": hour, "timezone": zone});
        Schedule::from_json(&crontab).unwrap()
    };
    match pick {
        0 => interval(60.0),
        1 => interval(1.0),
        2 => interval(86_400.0),
        3 => cron("* * * * *"),
        4 => cron("*/5 * * * *"),
        5 => cron("30 2 * * *"),
        6 => cron("0,30 1-3 * * *"),
        7 => cron("*/20 2 * * *"),
        8 => cron("0,1 * * * *"),
        9 => celery("*", "*"),
        10 => celery("*/15", "*"),
        11 => celery("20,35", "1-3"),
        _ => celery("30", "2"),
    }
}

const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Kathmandu",
];

/// An ordinary noon, and hours in which these zones change their clocks.
const STARTS: [&str; 6] = [
    "2026-01-15T11:59:30Z",
    "2026-03-28T22:00:00Z",
    "2026-10-24T22:00:00Z",
    "2026-03-08T02:00:00Z",
    "2026-11-01T02:00:00Z",
    "2026-04-04T12:00:00Z",
];

/// The client's settings, and its clock skew.
struct Settings {
    client: Client,
    skew: f64,
    grace: f64,
    longest: f64,
}

/// A client's reports, in the order of their arrival. Each comes within half the grace of its slot, and within the
/// early tolerance. With the first report of a slot comes Beat's hint for the next one, by the same clock.
fn reports(
    schedule: &Schedule,
    start: DateTime<Utc>,
    set: &Settings,
    dice: &mut Dice,
) -> Vec<(Signal, Option<DateTime<Utc>>)> {
    // A real Beat and a real cron go from one slot to the next.
    let slots: Vec<DateTime<Utc>> =
        std::iter::successors(schedule.next_after(start), |slot| schedule.next_after(*slot))
            .take(1_500)
            .collect();
    let gap = slots
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .min()
        .unwrap()
        .as_seconds_f64();
    let share = if matches!(set.client, Client::Bounded) {
        4.0
    } else {
        2.0
    };
    let room = (set.grace / share).min(gap / 10.0).min(30.0);
    // The tolerance must cover skew and jitter. If it is less than two seconds, the skew is half of it.
    let (skew, jitter) = if room > 2.0 {
        (set.skew, room - 1.0)
    } else {
        (set.skew * room / 2.0, room / 2.0)
    };

    let mut signals = Vec::new();
    for (pair, run) in slots.windows(2).zip(1_u128..) {
        let begin = pair[0] + crate::time::span(skew + jitter * dice.roll() * 0.999);
        let hint = Some(pair[1] + crate::time::span(skew + 0.05 * (dice.roll() + 1.0)));
        let most = match set.client {
            Client::Plain => {
                signals.push((signal(PingKind::Success, begin), hint));
                continue;
            }
            Client::Bounded => set.grace / 2.0,
            Client::Long => set.longest,
        };
        let end = begin + crate::time::span(most * (dice.roll() + 1.0) / 2.0 * 0.999);
        signals.push((signal_of(run, PingKind::Start, begin), hint));
        signals.push((signal_of(run, PingKind::Success, end), None));
    }
    signals.sort_by_key(|(signal, _)| signal.received_at);
    // Only ends follow after the last slot. No healthy client sends such signals alone.
    let last = *slots.last().unwrap() - seconds(2);
    signals.retain(|(signal, _)| signal.received_at < last);
    signals
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_healthy_client_never_trips(
        (pick, zone, start) in (0..SCHEDULES, 0..ZONES.len(), 0..STARTS.len()),
        client in prop_oneof![Just(Client::Plain), Just(Client::Bounded), Just(Client::Long)],
        beat in prop_oneof![Just(Report::None), Just(Report::Sent), Just(Report::Listed)],
        skew in prop_oneof![Just(-1.0), Just(0.0), Just(1.0)],
        grace in prop_oneof![Just(1.0), Just(5.0), Just(60.0), Just(600.0)],
        longest in prop_oneof![Just(30.0), Just(3_600.0)],
        seed in any::<u64>(),
    ) {
        // A run each second for an hour would exceed the limit of open runs, which this test is not about.
        let longest = if pick == 1 { 30.0 } else { longest };
        let schedule = schedule(pick, ZONES[zone]);
        let start: DateTime<Utc> = STARTS[start].parse().unwrap();
        let signals = reports(&schedule, start, &Settings { client, skew, grace, longest }, &mut Dice(seed));
        let longest = matches!(client, Client::Long).then_some(longest);
        let mut state = MonitorState::fresh(expectation(schedule, grace, longest), beat != Report::None, start);

        for (number, (signal, hint)) in signals.iter().enumerate() {
            prop_assert!(
                state.deadline_at.is_none_or(|deadline| deadline > signal.received_at),
                "report {number}, {:?} at {}, came too late: due {:?}, deadline {:?}; the ones before: {:?}",
                signal.kind,
                signal.received_at,
                state.next_due_at,
                state.deadline_at,
                signals[number.saturating_sub(3)..number].iter().map(|(s, _)| (s.kind, s.received_at)).collect::<Vec<_>>()
            );
            if let Some(hint) = hint.filter(|_| beat == Report::Sent) {
                on_sent(&mut state, Some(hint), signal.received_at);
            }
            let _ = on_ping(&mut state, signal);
            state.runs.retain(Run::is_open);
            if let Some(hint) = hint.filter(|_| beat == Report::Listed) {
                on_due_hint(&mut state, Some(hint), signal.received_at);
            }
        }
        prop_assert_eq!(state.status, Status::Up);
    }
}
