//! Several evaluators, group commits and people act at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Start, Success};
use deadbeat_domain::monitor::ping::{PingKind, Signal};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::on_ping;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address};
use deadbeat_services::monitor::{self, Change};
use deadbeat_store::monitor::batch::Batch;
use deadbeat_store::monitor::{SignalledMonitor, Stateful};
use futures::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, incoming};

/// A sequence of choices that is the same in each run of the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

const TWO_OPEN: &str = "SELECT count(*) FROM (SELECT 1 FROM incident WHERE resolved_at IS NULL \
    GROUP BY subject_kind, subject_id HAVING count(*) > 1) AS twice";
/// Counts monitors that are down or flap without an open incident, and open incidents of monitors that do neither.
const MISMATCHED: &str = "SELECT count(*) FROM monitor FULL JOIN (SELECT subject_id FROM incident WHERE resolved_at IS NULL \
    AND subject_kind = 'monitor') AS open ON open.subject_id = monitor.id \
    WHERE (coalesce(monitor.status, '') = 'down' OR flapping_since IS NOT NULL) <> (open.subject_id IS NOT NULL)";

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_evaluators_on_thousands_of_due_monitors_open_one_incident_each(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("m").await;
    world.ping(&monitor, Success).await;
    // The other monitors are copies of this one.
    sqlx::query(
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels, status, created_at,
            updated_at, next_due_at, deadline_at, check_after)
        SELECT gen_random_uuid(), project_id, gen_random_uuid(), slug || n, name, tags, schedule, grace_seconds, all_channels, status,
            created_at, updated_at, next_due_at, deadline_at, check_after
        FROM monitor, generate_series(2, 3500) AS n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    world.advance(90);
    let other = world.another_evaluator();

    let (here, there) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());

    assert_eq!(here.unwrap().down + there.unwrap().down, 3_500);
    let subjects = world
        .count("SELECT count(DISTINCT subject_id) FROM incident WHERE resolved_at IS NULL")
        .await;
    assert_eq!(
        (subjects, world.count("SELECT count(*) FROM incident").await),
        (3_500, 3_500)
    );
    assert_eq!(
        world
            .count("SELECT count(DISTINCT incident_id) FROM delivery")
            .await,
        3_500
    );
    assert_eq!(world.alerts().await.len(), 3_500);
    assert_eq!(
        world
            .count("SELECT count(*) FROM monitor WHERE check_after IS NOT NULL")
            .await,
        0
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_that_is_being_written_beats_the_silence(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Success).await;
    world.advance(90);
    let mut ping = world.store().begin().await.unwrap();
    let locked = deadbeat_store::monitor::lock_for_signals(
        &mut ping,
        &[monitor.ping_id.0],
        &[],
        deadbeat_store::monitor::Held::Wait,
    )
    .await
    .unwrap();

    let swept = world.sweep().await;

    assert_eq!((swept.claimed, swept.down), (0, 0), "the pings lock all rows");
    let mut monitors: Vec<SignalledMonitor> = locked.into_iter().map(Result::unwrap).collect();
    let _ = on_ping(&mut monitors[0].state, &world.signal(Success));
    deadbeat_store::monitor::batch::write(
        &mut ping,
        &Batch {
            monitors: monitors.iter().map(Stateful::changed).collect(),
            ..Batch::default()
        },
    )
    .await
    .unwrap();
    ping.commit().await.unwrap();
    assert_eq!(world.sweep().await.down, 0);
    assert_eq!(world.status(&monitor).await, Status::Up);
    assert!(world.incidents().await.is_empty());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn evaluators_racing_pings_never_open_two_incidents_and_lose_no_ping(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let mut monitors = Vec::new();
    for number in 0..8 {
        monitors.push(world.monitor(&format!("m{number}")).await);
    }
    let other = world.another_evaluator();
    let (there, _stop) = world.another_ingest();
    let acknowledged = AtomicU64::new(0);
    let mut dice = Dice(7);

    for round in 0..150 {
        // The time is near the deadline of 90 s, so that pings and verdicts coincide.
        world.advance(43 + dice.below(4) as i64);
        let pings: Vec<_> = (0..dice.below(12))
            .map(|number| {
                let kind = [
                    PingKind::Success,
                    PingKind::Fail,
                    PingKind::Start,
                    PingKind::Success,
                ][dice.below(4)];
                let run_id = (dice.below(2) == 0).then(|| Uuid::from_u128(dice.below(3) as u128));
                let to = Address::Ping(monitors[dice.below(monitors.len())].ping_id);
                let received_at = world.now() - TimeDelta::milliseconds(dice.below(200) as i64);
                let signal = Signal {
                    run_id,
                    received_at,
                    occurred_at: received_at,
                    ..world.signal(kind)
                };
                let door = if number % 2 == 0 {
                    world.services.ingest()
                } else {
                    &there
                };
                door.accept(incoming(to, signal))
            })
            .collect();
        let pinged = async {
            for answer in join_all(pings).await {
                assert_eq!(answer, Ok(Accepted::Recorded));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        };

        let ((), here, elsewhere) = tokio::join!(pinged, world.evaluator.sweep_once(), other.sweep_once());

        here.unwrap();
        elsewhere.unwrap();
        assert_eq!(world.count(TWO_OPEN).await, 0, "round {round}");
        assert_eq!(world.count(MISMATCHED).await, 0, "round {round}");
    }
    let stored = world.count("SELECT count(*) FROM ping").await;
    assert_eq!(stored, acknowledged.into_inner() as i64);
    assert_eq!(
        stored,
        world.count("SELECT sum(ping_count)::bigint FROM monitor").await
    );
    assert!(
        world
            .count("SELECT count(*) FROM transition WHERE cause = 'MISSED'")
            .await
            > 20,
        "pings and verdicts coincided"
    );
    let without_delivery = "SELECT count(*) FROM incident WHERE (SELECT count(*) FROM delivery WHERE incident_id = incident.id AND \
        alert = 'opened') <> 1 OR (SELECT count(*) FROM delivery WHERE incident_id = incident.id AND alert = 'resolved') \
        <> (resolved_at IS NOT NULL)::int";
    assert_eq!(
        world.count(without_delivery).await,
        0,
        "one alert opens each incident, and one resolves it"
    );
    let runs = "SELECT count(*) FROM monitor WHERE open_runs <> \
        (SELECT count(*) FROM run WHERE monitor_id = monitor.id AND status = 'open')";
    assert_eq!(world.count(runs).await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn people_racing_pings_and_evaluators_leave_no_incident_open_behind(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let mut dice = Dice(11);
    for round in 0..40 {
        let monitor = world.monitor(&format!("m{round}")).await;
        world
            .ping(&monitor, if dice.below(2) == 0 { Success } else { Start })
            .await;
        world.advance(if dice.below(3) == 0 { 10 } else { 90 });
        let change = Change {
            grace_seconds: Some(dice.below(60) as f64),
            ..Change::default()
        };
        let choice = dice.below(3);
        let person = async {
            let (services, access) = (&world.services, &world.access);
            match choice {
                0 => monitor::delete(services, access, monitor.id).await,
                1 => monitor::pause(services, access, monitor.id).await.map(drop),
                _ => monitor::update(services, access, monitor.id, &change)
                    .await
                    .map(drop),
            }
        };
        let kind = if dice.below(2) == 0 { Success } else { Fail };

        let (person, answer, swept) = tokio::join!(
            person,
            world.accept(Address::Ping(monitor.ping_id), kind),
            world.evaluator.sweep_once()
        );

        person.unwrap();
        answer.unwrap();
        swept.unwrap();
        assert_eq!(world.count(MISMATCHED).await, 0, "round {round}, choice {choice}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sweep_of_workers_locks_its_monitors_in_one_order(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    let mut entries = [world.entry("a").await, world.entry("b").await];
    entries.sort_by_key(|monitor| monitor.id);
    let [first, last] = entries;
    for name in ["celery@lost", "celery@replaced"] {
        world.worker_says(name, json!({})).await;
    }
    // A worker that falls silent now executes the run of the last monitor.
    let run = json!({
        "beat": "shop", "entry": last.entry, "run_id": Uuid::from_u128(1), "worker": "celery@lost", "attempt": Uuid::from_u128(1)
    });
    world.event(world.an_event("run_started", run)).await;
    // The first monitor is a member of the incident about a worker that the evaluator now gives up.
    sqlx::query("UPDATE worker SET status = 'down' WHERE name = 'celery@replaced'")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query(
        "WITH opened AS (
            INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at)
            SELECT gen_random_uuid(), project_id, 'worker', id, name, 'WORKER_LOST', '', '[]', '[]', $1
            FROM worker WHERE name = 'celery@replaced'
            RETURNING id
        )
        INSERT INTO incident_member (incident_id, monitor_id, joined_at) SELECT id, $2, $1 FROM opened",
    )
    .bind(world.now())
    .bind(first.id.0)
    .execute(&world.pool)
    .await
    .unwrap();
    world.advance(31);
    let mut writer = world.pool.begin().await.unwrap();
    let lock = "SELECT id FROM monitor WHERE id = $1 FOR UPDATE NOWAIT";
    sqlx::query(lock)
        .bind(first.id.0)
        .execute(&mut *writer)
        .await
        .unwrap();

    let beside = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while world.count(waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The writer locks rows in the order of ids. If the evaluator had already locked the last monitor, both would wait for each other.
        let taken = sqlx::query(lock).bind(last.id.0).execute(&mut *writer).await;
        writer.rollback().await.unwrap();
        taken
    };
    let beside = tokio::time::timeout(Duration::from_secs(60), beside);
    let (swept, taken) = tokio::join!(world.evaluator.sweep_once(), beside);

    taken.unwrap().unwrap();
    assert_eq!(
        swept.unwrap().down,
        2,
        "the lost worker, and the monitor of its run"
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM worker WHERE status = 'paused'")
            .await,
        1
    );
}
