//! A Beat comes back: which monitors recover with it, and which updates run at the same time.

use chrono::TimeDelta;
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Start, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::monitor;
use deadbeat_store::incident::member;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::celery::beat::several_at_once::Process;
use crate::setup::{World, alerted};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn when_beat_is_back_its_incident_resolves_and_the_members_are_expected_anew(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let beat = world.silent_beat(&["a", "b"]).await;

    world.alive().await;

    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", false)]);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    for name in ["a", "b"] {
        let state = world.entry(name).await.state;
        assert_eq!(
            (state.status, state.deadline_at),
            (Status::New, Some(world.now() + TimeDelta::seconds(65)))
        );
    }
    for _ in 0..7 {
        world.alive().await;
        world.finished("a", "success").await;
        world.sweep_after(10).await;
    }
    let own = alerted(world.entry("b").await.id.0, "UNKNOWN", true);
    assert_eq!(
        world.incidents().await,
        [alerted(beat, "BEAT_DOWN", false), own],
        "b stays silent"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_failure_of_a_member_is_reported_although_beat_is_down(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let beat = world.silent_beat(&["a", "b"]).await;
    let a = world.entry("a").await;

    // A run that Beat sent earlier ends only now.
    world.finished("a", "failure").await;
    world.finished("a", "failure").await;

    let incidents = [alerted(beat, "BEAT_DOWN", true), alerted(a.id.0, "FAILED", true)];
    assert_eq!(world.incidents().await, incidents);
    world.alive().await;
    let incidents = [alerted(beat, "BEAT_DOWN", false), alerted(a.id.0, "FAILED", true)];
    assert_eq!(
        world.incidents().await,
        incidents,
        "Beat's return resolves no failure"
    );
    assert_eq!(world.status(&a).await, Status::Down);
    assert_eq!(world.entry("b").await.state.status, Status::New);
    world.finished("a", "success").await;
    assert_eq!(world.alerts().await, ["opened", "opened", "resolved", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_member_that_recovered_and_then_failed_stays_down_when_beat_is_back(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.silent_beat(&["a"]).await;
    let a = world.entry("a").await;
    world.finished("a", "success").await;
    assert_eq!(world.status(&a).await, Status::Up);
    world.finished("a", "failure").await;

    world.alive().await;

    assert_eq!(
        world.incidents().await,
        [alerted(beat, "BEAT_DOWN", false), alerted(a.id.0, "FAILED", true)]
    );
    assert_eq!(world.status(&a).await, Status::Down);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_member_that_fails_and_then_succeeds_in_one_batch_leaves_nothing_open(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.silent_beat(&["a"]).await;
    let a = world.entry("a").await;
    let finished = |outcome: &str| {
        let run = json!({"beat": "shop", "entry": "a", "run_id": Uuid::new_v4(), "outcome": outcome});
        world.an_event("run_finished", run)
    };

    world
        .events(vec![
            finished("failure"),
            finished("failure"),
            finished("success"),
        ])
        .await;

    assert_eq!(world.status(&a).await, Status::Up);
    assert_eq!(
        world.incidents().await,
        [alerted(beat, "BEAT_DOWN", true), alerted(a.id.0, "FAILED", false)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_member_that_was_paused_or_deleted_stays_so(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.silent_beat(&["paused", "deleted", "kept"]).await;
    let (paused, deleted) = (world.entry("paused").await, world.entry("deleted").await);
    monitor::pause(&world.services, &world.access, paused.id)
        .await
        .unwrap();
    monitor::delete(&world.services, &world.access, deleted.id)
        .await
        .unwrap();

    world.alive().await;

    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", false)]);
    assert_eq!(world.status(&paused).await, Status::Paused);
    assert_eq!(world.entry("kept").await.state.status, Status::New);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_member_that_joins_while_beat_returns_is_expected_anew_whoever_comes_first(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b", "c"]).await;
    let evaluators = [world.another_evaluator(), world.another_evaluator()];
    for round in 0..25 {
        // Beat is down after 30 s without reports. The evaluator judges the monitors, 65 s after their last report, while Beat comes back.
        for name in ["a", "b", "c"] {
            world.finished(name, "success").await;
        }
        world.alive().await;
        world.sweep_after(40).await;
        world.advance(25);

        let (_, here, there) = tokio::join!(
            world.alive(),
            evaluators[0].sweep_once(),
            evaluators[1].sweep_once()
        );

        here.unwrap();
        there.unwrap();
        let open = world
            .count("SELECT count(*) FROM incident WHERE resolved_at IS NULL AND subject_kind = 'beat'")
            .await;
        assert_eq!(open, 0, "round {round}");
        // A monitor either joined and was armed again, or was judged after Beat's return. In the second case, Beat's last report is later than the
        // slot. The monitor then gets an incident of its own.
        let stranded = "SELECT count(*) FROM monitor WHERE status = 'down' AND NOT EXISTS (SELECT FROM incident \
            WHERE subject_id = monitor.id AND resolved_at IS NULL)";
        assert_eq!(
            world.count(stranded).await,
            0,
            "round {round}: down without an incident"
        );
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_member_that_is_judged_again_while_beat_returns_is_no_deadlock(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.silent_beat(&["a"]).await;
    let a = world.entry("a").await;
    // The monitor recovers and falls due again, and an evaluator has locked its row when Beat comes back.
    world.ping(&a, Success).await;
    world.advance(65);
    let mut sweep = world.store().begin().await.unwrap();
    let claimed = deadbeat_store::monitor::claim_overdue(&mut sweep, world.now(), 10)
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);

    let join = async {
        // Beat's return has to wait for the evaluator's lock.
        world.until_somebody_waits().await;
        let joined = member::join(
            &mut sweep,
            &[((world.project, SubjectKind::Beat, beat), a.id)],
            world.now(),
        )
        .await
        .unwrap();
        sweep.commit().await.unwrap();
        joined
            .into_iter()
            .map(|(.., monitor)| monitor)
            .collect::<Vec<_>>()
    };
    let ((), joined) = tokio::join!(world.alive(), join);

    assert_eq!(joined, [a.id]);
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", false)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn schedules_pings_sweeps_and_signs_of_life_at_once_never_deadlock(pool: PgPool) {
    let world = World::new(pool).await;
    let names = ["a", "b", "c", "d", "e"];
    world.schedule(&names).await;
    let other = world.another_evaluator();
    for round in 0..42 {
        // Three rounds with reports alternate with three rounds without any. Without reports, Beat goes down and its monitors join; then all
        // recover.
        let quiet = round % 6 >= 3;
        world.advance(if quiet { 40 } else { 7 });
        let kind = [Success, Fail, Start, Success][round % 4];
        let entries = if round % 4 == 0 { &names[..3] } else { &names[..] };
        let pings = async {
            for name in names.iter().filter(|_| !quiet) {
                world.ping(&world.entry(name).await, kind).await;
            }
        };
        let alive = async {
            if !quiet {
                world.alive().await;
            }
        };

        let ((), (), (), here, there) = tokio::join!(
            pings,
            alive,
            world.schedule(entries),
            world.evaluator.sweep_once(),
            other.sweep_once()
        );

        here.unwrap();
        there.unwrap();
    }
    assert!(world.members().await > 0, "Beat was down meanwhile");
}

impl World {
    /// Returns when a statement waits for a lock.
    async fn until_somebody_waits(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..10_000 {
            if self.count(waiting).await > 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("nobody waits");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_whose_verdict_waited_for_beat_is_given_a_moment_when_beat_is_back(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.advance(50);
    Process(1).is_reporting(&world).await;
    // Both entries fall due. Their verdicts wait for the verdict on Beat, which falls after 30 s.
    for _ in 0..30 {
        world.sweep_after(1).await;
    }
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", true)]);

    Process(2).is_reporting(&world).await;
    for _ in 0..5 {
        world.sweep_after(1).await;
    }
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", false)]);
    world.finished("a", "success").await;
    for _ in 0..20 {
        world.sweep_after(1).await;
    }

    let own = alerted(world.entry("b").await.id.0, "UNKNOWN", true);
    assert_eq!(
        world.incidents().await,
        [alerted(beat, "BEAT_DOWN", false), own],
        "no run of b arrived"
    );
}
