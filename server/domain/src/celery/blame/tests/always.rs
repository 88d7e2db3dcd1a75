//! Properties that hold for any evidence.

use proptest::prelude::*;

use super::*;
use crate::celery::host::load::HostLoad;
use crate::monitor::run::{Contest, Run};

fn maybe_at() -> impl Strategy<Value = Option<DateTime<Utc>>> {
    prop::option::of((-200_i32..200).prop_map(|seconds| at(f64::from(seconds))))
}

fn any_at() -> impl Strategy<Value = DateTime<Utc>> {
    (-200_i32..200).prop_map(|seconds| at(f64::from(seconds)))
}

fn any_status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::New, Status::Up, Status::Down, Status::Paused])
}

fn any_trouble() -> impl Strategy<Value = Option<Cause>> {
    prop::option::of(prop::sample::select(Cause::ALL.to_vec()))
}

prop_compose! {
    fn any_beat()(status in any_status(), last_seen_at in maybe_at(), deadline_at in maybe_at(), hung_at in maybe_at(), sent_at in maybe_at(),
                  send_failed_at in maybe_at(), lost_at in maybe_at(), skewed_since in maybe_at(), back_at in maybe_at()) -> BeatView {
        BeatView { status, last_seen_at, deadline_at, hung_at, sent_at, send_failed_at, lost_at, skewed_since, back_at }
    }
}

prop_compose! {
    fn any_broker()(status in any_status(), down_since in maybe_at(), back_at in maybe_at(), unacked in prop::option::of(0_i64..5)) -> BrokerView {
        BrokerView { status, down_since, back_at, unacked, ..broker() }
    }
}

prop_compose! {
    fn any_queue()(status in any_status(), trouble in any_trouble(), since in maybe_at(), depth in 0_i64..3, seen_at in any_at()) -> QueueView {
        QueueView { status, trouble, since, depth, seen_at, ..queue() }
    }
}

prop_compose! {
    fn any_worker()(number in 1_u128..4, status in any_status(), trouble in any_trouble(), last_seen_at in maybe_at(), deadline_at in maybe_at(),
                    started_at in maybe_at(), progress_at in any_at(), active in 0_i64..3, reserved in 0_i64..4, held in 0_i64..2,
                    consumes in any::<bool>(), per_cpu in prop::option::of(0_i32..4), running in prop::option::of(prop::collection::vec(Just(RUN), 0..3))) -> WorkerView {
        let queues = if consumes { vec![QUEUE.to_owned()] } else { Vec::new() };
        let load = HostLoad { per_cpu: per_cpu.map(f64::from), waits: Some(0.9), ..HostLoad::default() };
        WorkerView { load, status, trouble, last_seen_at, deadline_at, started_at, progress_at, active, reserved, held, queues, running, ..worker(number) }
    }
}

prop_compose! {
    fn any_stage()(published_at in maybe_at(), received_at in maybe_at(), queue in prop::option::of(Just(QUEUE.to_owned())),
                   is_expired in any::<bool>(),
                   worker in prop::option::of(prop::sample::select(vec!["celery@1".to_owned(), "celery@9".to_owned()]))) -> StageView {
        StageView { published_at, received_at, heard_at: at(0.0), queue, worker, is_expired, ..sent() }
    }
}

prop_compose! {
    fn any_backend()(since in any_at(), is_alerted in any::<bool>(), holds_up_beat in any::<bool>(), numbers in prop::collection::vec(1_u128..4, 0..3)) -> BackendView {
        let holds_up: Vec<WorkerId> = numbers.into_iter().map(|number| worker(number).id).collect();
        BackendView { since, is_alerted, holds_up_beat, troubled: holds_up.clone(), holds_up, ..backend() }
    }
}

prop_compose! {
    fn any_evidence()(beat in prop::option::of(any_beat()), broker in prop::option::of(any_broker()), stage in prop::option::of(any_stage()),
                      queues in prop::collection::vec(any_queue(), 0..2), workers in prop::collection::vec(any_worker(), 0..4),
                      is_canary in any::<bool>(), vanished_at in prop::option::of(0_i32..300), result_backend in prop::option::of(any_backend())) -> Evidence {
        // The time is set when a run first waits for it.
        let strangers = queues.iter().filter_map(|queue| Some((queue.id, Some(at(f64::from(vanished_at?)))))).collect();
        Evidence { beat, broker, stage, queues, workers, is_canary, strangers, result_backend, ..Evidence::default() }
    }
}

prop_compose! {
    fn any_run()(started_at in maybe_at(), deadline_at in maybe_at(), attempts in 0_i32..5, named in any::<bool>(),
                 contest in prop::option::of(prop::sample::select(vec![Contest::Again, Contest::Repeated, Contest::Alerted]))) -> Run {
        Run { started_at, deadline_at, attempts, contest, run_id: named.then_some(RUN), ..run() }
    }
}

/// Longer than all waits together. No report comes meanwhile.
const LONG: f64 = 3_600.0;

proptest! {
    #[test]
    fn a_monitor_without_a_beat_has_only_causes_of_its_own(evidence in any_evidence(), due in maybe_at(), now in any_at()) {
        let alone = Evidence { beat: None, ..evidence };
        prop_assert_eq!(alone.of_missed(due, EARLY, now), own(Cause::Missed));
    }

    #[test]
    fn without_evidence_an_overrun_is_just_that(run in any_run(), now in any_at()) {
        prop_assert_eq!(Evidence::default().of_overrun(&run, now), own(Cause::Overrun));
    }

    #[test]
    fn what_is_waited_for_is_to_come_and_comes(evidence in any_evidence(), run in any_run(), due in maybe_at(), now in any_at()) {
        for now in [now, at(LONG)] {
            for blame in [evidence.of_missed(due, EARLY, now), evidence.of_overrun(&run, now)] {
                if let Blame::Wait(until) = blame {
                    prop_assert!(until > now, "{until} at {now}");
                    prop_assert!(now < at(LONG), "forever");
                }
            }
            if let Contested::Wait(until) = evidence.of_contested(&run, now) {
                prop_assert!(until > now && now < at(LONG));
            }
        }
    }

    /// As the evaluator does: judges again each time the wait is over, while no report comes.
    #[test]
    fn no_scene_waits_for_ever(evidence in any_evidence(), run in any_run(), due in maybe_at(), now in any_at()) {
        let mut judgements = (0, now);
        while let Blame::Wait(until) = evidence.of_missed(due, EARLY, judgements.1) {
            judgements = (judgements.0 + 1, until);
            prop_assert!(judgements.0 < 300, "{until}");
        }
        let mut judgements = (0, now);
        while let Blame::Wait(until) = evidence.of_overrun(&run, judgements.1) {
            judgements = (judgements.0 + 1, until);
            prop_assert!(judgements.0 < 300, "{until}");
        }
    }

    #[test]
    fn who_is_part_of_something_is_part_of_what_is_down(evidence in any_evidence(), run in any_run(), due in maybe_at(), now in any_at()) {
        for blame in [evidence.of_missed(due, EARLY, now), evidence.of_overrun(&run, now)] {
            let Blame::Part(part_of, _) = blame else { continue };
            let is_down = match part_of {
                PartOf::Beat => evidence.beat.is_some_and(|beat| beat.status == Status::Down),
                PartOf::Broker(_) => evidence.broker.is_some_and(|broker| broker.status == Status::Down),
                PartOf::ResultBackend(_) => evidence.result_backend.as_ref().is_some_and(|backend| backend.is_alerted),
                PartOf::Queue(id) => evidence.queues.iter().any(|queue| queue.id == id && queue.status == Status::Down),
                PartOf::Worker(id) => evidence.workers.iter().any(|worker| worker.id == id && worker.status == Status::Down),
            };
            prop_assert!(is_down, "{part_of:?}");
        }
    }
}
