//! A worker that speaks now and then: each word moves its deadline on, and no run may be waited for for ever.

use super::*;

/// Its last word was that many seconds before `now`; it may be silent for 30.
fn spoke(ago: f64, now: f64) -> WorkerView {
    WorkerView {
        last_seen_at: Some(at(now - ago)),
        deadline_at: Some(at(now - ago + 30.0)),
        progress_at: at(now - ago),
        ..worker(1)
    }
}

fn judged(stage: &StageView, now: f64) -> Blame {
    let mut evidence = scene();
    evidence.beat = Some(BeatView {
        last_seen_at: Some(at(now)),
        deadline_at: Some(at(now + 75.0)),
        ..beat()
    });
    evidence.broker = Some(BrokerView {
        seen_at: Some(at(now - 3.0)),
        ..broker()
    });
    evidence.stage = Some(stage.clone());
    evidence.queues[0].seen_at = at(now - 3.0);
    evidence.workers = vec![spoke(12.0, now)];
    evidence.of_missed(Some(at(60.0)), EARLY, at(now))
}

#[test]
fn a_run_in_a_starving_worker_is_told_when_it_was_waited_for_as_long_as_any_silence() {
    for stage in [sent(), received(1)] {
        let since = stage.received_at.or(stage.published_at).unwrap();
        // 30 s of silence, and a look more.
        let told_at = (since - at(0.0)).num_seconds() as f64 + 50.0;

        assert!(matches!(judged(&stage, told_at - 1.0), Blame::Wait(_)));
        assert_eq!(judged(&stage, told_at), own(Cause::Unknown));
        assert_eq!(judged(&stage, told_at + 600.0), own(Cause::Unknown));
    }
}

#[test]
fn a_worker_that_was_not_heard_since_is_judged_before_its_runs() {
    let silent = WorkerView {
        last_seen_at: Some(at(55.0)),
        deadline_at: Some(at(85.0)),
        ..worker(1)
    };

    assert_eq!(silent.awaited(at(60.0), at(80.0)), Some(Blame::Wait(at(87.0))));
    assert_eq!(silent.awaited(at(60.0), at(110.0)), None);
}
