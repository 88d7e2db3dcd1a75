//! Traces: their state, and that neither order nor repetition of reports matters.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn at(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_780_000_000_000 + milliseconds).unwrap()
}

fn stage(kind: StageKind, milliseconds: i64) -> Stage {
    Stage {
        id: Uuid::new_v4(),
        kind,
        at: at(milliseconds),
        retries: 0,
        attempt: None,
        worker: None,
        queue: None,
        redelivered: false,
        pid: None,
        outcome: None,
        soft: false,
        duration_seconds: None,
        error: None,
    }
}

fn report(stage: Stage) -> StageReport {
    StageReport {
        stage,
        task: None,
        task_id: None,
        slot: None,
        eta: None,
        published_at: None,
    }
}

fn started(milliseconds: i64, attempt: u128) -> Stage {
    Stage {
        attempt: Some(Uuid::from_u128(attempt)),
        ..stage(StageKind::Started, milliseconds)
    }
}

/// `attempt` 0: the main process reports it.
fn ended(milliseconds: i64, attempt: u128, outcome: Outcome) -> Stage {
    Stage {
        attempt: (attempt > 0).then(|| Uuid::from_u128(attempt)),
        outcome: Some(outcome),
        ..stage(StageKind::Finished, milliseconds)
    }
}

fn again(milliseconds: i64) -> Stage {
    Stage {
        redelivered: true,
        ..stage(StageKind::Received, milliseconds)
    }
}

fn retried(retries: i32, stage: Stage) -> Stage {
    Stage { retries, ..stage }
}

fn of(stages: &[Stage]) -> Trace {
    let mut trace = Trace::default();
    for stage in stages {
        fold(&mut trace, &report(stage.clone()));
    }
    trace
}

#[test]
fn a_run_stands_where_its_last_attempt_was_last_reported() {
    use Outcome::*;
    use StageKind::*;
    let ended_as = TraceState::Ended;
    let published = || stage(Published, 0);
    let received = || stage(Received, 10);
    for (what, stages, state) in [
        ("sent", vec![published()], TraceState::Published),
        ("taken", vec![published(), received()], TraceState::Received),
        (
            "running",
            vec![published(), received(), started(20, 1)],
            TraceState::Started,
        ),
        (
            "done",
            vec![published(), received(), started(20, 1), ended(30, 1, Success)],
            ended_as(Success),
        ),
        (
            "only its end was reported",
            vec![ended(30, 1, Failure)],
            ended_as(Failure),
        ),
        (
            "the publisher's clock is late",
            vec![stage(Published, 900), started(20, 1), ended(30, 1, Success)],
            ended_as(Success),
        ),
        (
            "its end was reported before its start",
            vec![started(20, 1), ended(19, 1, Success)],
            ended_as(Success),
        ),
        (
            "revoked before it began",
            vec![received(), ended(15, 0, Revoked)],
            ended_as(Revoked),
        ),
        (
            "it waits for a retry",
            vec![
                started(20, 1),
                retried(
                    0,
                    Stage {
                        attempt: Some(Uuid::from_u128(1)),
                        ..stage(Retried, 30)
                    },
                ),
            ],
            TraceState::Retried,
        ),
        (
            "the retry was sent",
            vec![
                started(20, 1),
                stage(Retried, 30),
                retried(1, stage(Published, 29)),
            ],
            TraceState::Retried,
        ),
        (
            "the retry was received",
            vec![
                started(20, 1),
                stage(Retried, 30),
                retried(1, stage(Received, 31)),
            ],
            TraceState::Received,
        ),
        (
            "the retry runs",
            vec![started(20, 1), stage(Retried, 30), retried(1, started(25, 2))],
            TraceState::Started,
        ),
        (
            "the retry has ended",
            vec![
                retried(1, started(40, 2)),
                retried(1, ended(50, 2, Success)),
                stage(Retried, 60),
            ],
            ended_as(Success),
        ),
        (
            "killed by the time limit: main process last",
            vec![started(20, 1), ended(30, 1, Aborted), ended(31, 0, TimeLimit)],
            ended_as(TimeLimit),
        ),
        (
            "killed by the time limit: child last",
            vec![started(20, 1), ended(30, 0, TimeLimit), ended(31, 1, Aborted)],
            ended_as(TimeLimit),
        ),
        (
            "revoked: child last",
            vec![started(20, 1), ended(30, 0, Revoked), ended(31, 1, Aborted)],
            ended_as(Revoked),
        ),
        (
            "an earlier attempt was lost",
            vec![
                started(20, 1),
                ended(30, 0, Lost),
                again(35),
                started(40, 2),
                ended(50, 2, Aborted),
            ],
            ended_as(Aborted),
        ),
        (
            "a failure, not an abort",
            vec![started(20, 1), ended(30, 0, Lost), ended(31, 1, Failure)],
            ended_as(Failure),
        ),
        (
            "delivered again",
            vec![received(), started(20, 1), ended(30, 0, Lost), again(40)],
            TraceState::Received,
        ),
        (
            "redelivered, and begun",
            vec![
                received(),
                started(20, 1),
                ended(30, 0, Lost),
                again(40),
                started(41, 2),
            ],
            TraceState::Started,
        ),
        (
            "redelivered, and reported slightly late",
            vec![again(32), started(30, 1), ended(31, 1, Success)],
            ended_as(Success),
        ),
        (
            "redelivered after its worker died without a report",
            vec![
                received(),
                started(20, 1),
                again(3_000),
                started(3_010, 2),
                ended(3_020, 2, Success),
            ],
            ended_as(Success),
        ),
        (
            "redelivered while it runs, and the first ends last",
            vec![
                started(20, 1),
                started(30, 2),
                ended(40, 2, Success),
                ended(50, 1, Failure),
            ],
            ended_as(Failure),
        ),
    ] {
        assert_eq!(of(&stages).state(), state, "{what}");
        let backwards: Vec<Stage> = stages.into_iter().rev().collect();
        assert_eq!(of(&backwards).state(), state, "{what}, reported backwards");
    }
}

#[test]
fn a_run_that_was_given_up_is_lost_until_somebody_knows_better() {
    let start = Stage {
        worker: Some("celery@w1".to_owned()),
        ..started(20, 1)
    };
    let mut trace = of(&[stage(StageKind::Published, 0), start]);
    let given_up = trace.given_up(Uuid::new_v4(), "its worker is gone");

    assert!(fold(&mut trace, &given_up));

    assert_eq!(trace.state(), TraceState::Ended(Outcome::Lost));
    assert_eq!((trace.finished_at(), trace.run_seconds()), (None, None));
    assert_eq!(
        (trace.error(), trace.worker()),
        (Some("its worker is gone"), Some("celery@w1"))
    );

    // It had ended before it was given up, and its worker reports that an hour later.
    fold(&mut trace, &report(ended(900, 1, Outcome::Success)));
    assert_eq!(trace.state(), TraceState::Ended(Outcome::Success));
    assert_eq!((trace.finished_at(), trace.error()), (Some(at(900)), None));
}

#[test]
fn what_a_trace_says_of_times_and_attempts() {
    let mut trace = Trace::default();
    let sent = StageReport {
        task: Some("shop.pay".to_owned()),
        eta: Some(at(5_000)),
        published_at: Some(at(0)),
        ..report(stage(StageKind::Published, 0))
    };
    let retry_sent = StageReport {
        eta: Some(at(90_000)),
        published_at: Some(at(6_000)),
        ..report(retried(1, stage(StageKind::Published, 6_000)))
    };
    fold(&mut trace, &retry_sent);
    fold(&mut trace, &sent);
    for stage in [
        started(5_250, 1),
        Stage {
            attempt: Some(Uuid::from_u128(1)),
            error: Some("Timeout".to_owned()),
            ..stage(StageKind::Retried, 6_000)
        },
        retried(1, started(90_100, 2)),
    ] {
        fold(&mut trace, &report(stage));
    }
    assert_eq!(trace.wait(), Some(TimeDelta::milliseconds(250)));
    assert_eq!(
        (trace.attempts(), trace.retries(), trace.error()),
        (2, 1, Some("Timeout"))
    );
    assert_eq!(trace.run_seconds(), None);

    fold(
        &mut trace,
        &report(retried(1, ended(90_400, 2, Outcome::Success))),
    );
    assert_eq!(
        (trace.started_at(), trace.finished_at()),
        (Some(at(5_250)), Some(at(90_400)))
    );
    assert_eq!((trace.run_seconds(), trace.error()), (Some(0.3), None));
    assert_eq!(trace.task.as_deref(), Some("shop.pay"));
}

#[test]
fn when_a_run_was_sent_is_known_by_who_sent_it_and_else_by_its_message() {
    // The message has the time by the clock of Beat's host, which is ten minutes slow.
    let received = StageReport {
        published_at: Some(at(-600_000)),
        ..report(stage(StageKind::Received, 100))
    };
    let sent = StageReport {
        published_at: Some(at(0)),
        ..report(stage(StageKind::Published, 0))
    };
    let ended = StageReport {
        published_at: Some(at(-600_001)),
        ..report(ended(300, 0, Outcome::Expired))
    };
    let mut trace = Trace::default();
    fold(&mut trace, &received);
    assert_eq!(trace.published_at, Some(at(-600_000)));
    for one in [&sent, &ended, &sent, &received] {
        fold(&mut trace, one);
        assert_eq!(trace.published_at, Some(at(0)));
    }
    assert_eq!(trace.state(), TraceState::Ended(Outcome::Expired));
}

#[test]
fn of_very_many_stages_the_first_and_the_last_are_kept_and_the_others_counted() {
    let mut trace = Trace::default();
    for number in 0..1_000 {
        fold(&mut trace, &report(started(number, 1 + number as u128)));
    }

    assert_eq!((trace.stages.len(), trace.more_stages), (TRACE_STAGES, 936));
    assert_eq!(trace.attempts(), 1_000);
    assert_eq!(trace.started_at(), Some(at(0)));
    assert_eq!(trace.heard_at(), Some(at(999)));
}

#[test]
fn states_are_read_as_they_are_written() {
    let all = TraceState::OPEN
        .into_iter()
        .chain(Outcome::ALL.map(TraceState::Ended));
    for state in all {
        assert_eq!(TraceState::parse(state.as_str()), Some(state));
        let group = if TraceState::OPEN.contains(&state) {
            "open"
        } else {
            "failed"
        };
        let good = [Outcome::Success, Outcome::Ignored].map(TraceState::Ended);
        assert_eq!(
            TraceState::named(group).contains(&state),
            !good.contains(&state),
            "{state:?}"
        );
    }
    for outcome in Outcome::ALL {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
    }
    assert!(TraceState::named("great").is_empty());
}

#[test]
fn a_stage_is_read_as_it_is_written_and_short() {
    let start = Stage {
        worker: Some("celery@w1".to_owned()),
        ..started(20, 1)
    };
    let written = serde_json::to_string(&start).unwrap();
    assert!(written.len() < 170, "{written}");
    assert_eq!(serde_json::from_str::<Stage>(&written).unwrap(), start);
}

prop_compose! {
    /// Few values of each field, so that they collide.
    fn any_report()(
        id in any::<u128>(),
        kind in select(vec![StageKind::Published, StageKind::Received, StageKind::Started, StageKind::Retried, StageKind::Finished]),
        milliseconds in 0..40_i64,
        retries in 0..3_i32,
        attempt in proptest::option::of(1..5_u128),
        worker in proptest::option::of(select(vec!["celery@w1", "celery@w2"])),
        redelivered in any::<bool>(),
        outcome in select(Outcome::ALL.to_vec()),
        error in proptest::option::of(select(vec!["KeyError", "Timeout"])),
        task in proptest::option::of(select(vec!["a", "b"])),
        eta in proptest::option::of(0..40_i64),
        published in proptest::option::of(0..40_i64),
    ) -> StageReport {
        StageReport {
            stage: Stage {
                id: Uuid::from_u128(id),
                retries,
                attempt: attempt.map(Uuid::from_u128),
                worker: worker.map(str::to_owned),
                redelivered,
                outcome: (kind == StageKind::Finished).then_some(outcome),
                error: error.map(str::to_owned),
                ..stage(kind, milliseconds)
            },
            task: task.map(str::to_owned),
            task_id: None,
            slot: eta.map(at),
            eta: eta.map(at),
            published_at: published.map(at),
        }
    }
}

fn folded(report: impl IntoIterator<Item = StageReport>) -> Trace {
    let mut trace = Trace::default();
    for one in report {
        fold(&mut trace, &one);
    }
    trace
}

proptest! {
    #[test]
    fn neither_order_nor_repetition_matters(
        (report, shuffled) in proptest::collection::vec(any_report(), 0..30).prop_flat_map(|report| {
            // Each stage at least once, and half of them again.
            let twice: Vec<StageReport> = report.iter().chain(&report[..report.len() / 2]).cloned().collect();
            (Just(report), Just(twice).prop_shuffle())
        }),
    ) {
        let (one, other) = (folded(report), folded(shuffled));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.state(), other.state());
    }

    #[test]
    fn beyond_the_cap_order_does_not_matter_and_all_are_counted(
        (report, shuffled) in proptest::collection::vec(any_report(), 60..200)
            .prop_flat_map(|report| (Just(report.clone()), Just(report).prop_shuffle())),
    ) {
        let count = report.len();
        let (one, other) = (folded(report), folded(shuffled));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.stages.len() + usize::try_from(one.more_stages).unwrap(), count);
        prop_assert!(one.stages.len() <= TRACE_STAGES);
    }

    #[test]
    fn what_is_reported_in_parts_is_what_is_reported_at_once(report in proptest::collection::vec(any_report(), 1..20), cut in 0..20_usize) {
        // As with the database: a part is written and read back, and further stages are added.
        let cut = cut.min(report.len());
        let mut stored = folded(report[..cut].iter().cloned());
        let written = serde_json::to_value(&stored.stages).unwrap();
        stored.stages = serde_json::from_value(written).unwrap();
        for one in &report[cut..] {
            fold(&mut stored, one);
        }
        prop_assert_eq!(stored, folded(report));
    }

    #[test]
    fn a_trace_contradicts_itself_nowhere(report in proptest::collection::vec(any_report(), 1..30)) {
        let trace = folded(report);
        let has_ended = matches!(trace.state(), TraceState::Ended(_));
        prop_assert_eq!(trace.finished_at().is_some(), has_ended);
        prop_assert!(trace.run_seconds().is_none_or(|seconds| has_ended && seconds >= 0.0));
        prop_assert!(trace.wait().is_none_or(|wait| wait >= TimeDelta::zero()));
    }
}
