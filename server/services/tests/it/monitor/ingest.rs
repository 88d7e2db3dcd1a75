//! The server stores every signal that it acknowledges, in order. One bad signal spoils no other.

use std::sync::Arc;

use chrono::TimeDelta;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Log, Start, Success};
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::time::Clock;
use deadbeat_services::celery::event::Verdict;
use deadbeat_services::monitor;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address};
use deadbeat_services::monitor::signal::ingest::Ingest;
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::people::api_key;
use futures::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::setup::{World, alerted, entry, incoming};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_acknowledged_is_stored_and_numbered_in_order(pool: PgPool) {
    let world = World::new(pool).await;
    let monitors = [world.monitor("one").await, world.monitor("two").await];
    let kinds = [Start, Success, Log, Fail, Success];
    let sent = (0..1_000_usize).map(|number| {
        let received_at = world.now() + TimeDelta::microseconds(number as i64);
        let signal = Signal {
            received_at,
            ..world.signal(kinds[number % kinds.len()])
        };
        world
            .services
            .ingest()
            .accept(incoming(Address::Ping(monitors[number % 2].ping_id), signal))
    });

    let acknowledged = join_all(sent)
        .await
        .into_iter()
        .filter(|answer| *answer == Ok(Accepted::Recorded))
        .count();

    assert_eq!(acknowledged, 1_000);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1_000);
    let gaps = "SELECT count(*) FROM (SELECT n - row_number() OVER (PARTITION BY monitor_id ORDER BY received_at) AS gap \
        FROM ping) AS numbered WHERE gap <> 0";
    assert_eq!(
        world.count(gaps).await,
        0,
        "in the order of arrival, without gaps"
    );
    for monitor in &monitors {
        assert_eq!(world.read(monitor.id).await.state.ping_count, 500);
    }
    assert!(
        world
            .services
            .ingest()
            .figures()
            .batches
            .load(std::sync::atomic::Ordering::Relaxed)
            < 100,
        "in groups"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_flood_that_waits_when_the_process_stops_is_written(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("flooded").await;
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let (ingest, writers) = Ingest::new(
        &world.store(),
        &clock,
        &world.site,
        &world.bell,
        Registry::default(),
        vec![None],
    );
    let sent =
        (0..300).map(|_| ingest.accept(incoming(Address::Ping(monitor.ping_id), world.signal(Success))));
    // All signals are in the queue before the writer starts. The stop comes right after its start.
    let answers = tokio::task::unconstrained(join_all(sent));
    let stop = CancellationToken::new();
    let stopping = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };

    let (answers, (), ()) = tokio::join!(answers, writers.run(stop.clone()), stopping);

    let recorded = answers.iter().filter(|answer| **answer == Ok(Accepted::Recorded));
    assert_eq!(recorded.count(), 300);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 300);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_batch_that_takes_a_monitor_up_and_down_reports_every_change_in_order(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    let address = || Address::Ping(monitor.ping_id);
    let kinds = [Success, Fail, Fail, Success, Log, Start, Fail, Success, Fail];

    let answers = join_all(kinds.map(|kind| world.accept(address(), kind))).await;

    assert!(answers.iter().all(|answer| *answer == Ok(Accepted::Recorded)));
    assert_eq!(
        world.alerts().await,
        ["opened", "resolved", "opened", "resolved", "opened"]
    );
    let incidents = [false, false, true].map(|open| alerted(monitor.id.0, "FAILED", open));
    assert_eq!(world.incidents().await, incidents);
    assert_eq!(world.count("SELECT count(*) FROM transition").await, 6);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_id_may_be_used_again_within_one_batch(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    world.ping_of(&monitor, 1, Start).await;

    let again = [Success, Start, Fail, Start].map(|kind| {
        let signal = Signal {
            run_id: Some(Uuid::from_u128(1)),
            ..world.signal(kind)
        };
        world
            .services
            .ingest()
            .accept(incoming(Address::Ping(monitor.ping_id), signal))
    });
    assert!(
        join_all(again)
            .await
            .iter()
            .all(|answer| *answer == Ok(Accepted::Recorded))
    );

    assert_eq!(world.count("SELECT count(*) FROM run").await, 3);
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE status = 'open'")
            .await,
        1
    );
    assert_eq!(world.read(monitor.id).await.open_runs, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn each_address_finds_its_monitor_and_nobody_elses(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    let key = |world: &World| {
        let (services, access) = (world.services.clone(), world.access);
        async move {
            api_key::issue(&services, &access, "key", Scope::Ping)
                .await
                .unwrap()
        }
    };
    let ((own, own_key), (theirs, foreign_key)) = (key(&world).await, key(&other).await);

    let by_slug = world.accept(Address::slug(&own_key, "backup"), Success).await;
    let by_id = world.accept(Address::Ping(monitor.ping_id), Success).await;
    let no_such_slug = world.accept(Address::slug(&own_key, "missing"), Success).await;
    let foreign = world.accept(Address::slug(&foreign_key, "backup"), Success).await;
    api_key::revoke(&world.services, &world.access, own.id)
        .await
        .unwrap();
    let revoked = world.accept(Address::slug(&own_key, "backup"), Success).await;

    assert_eq!((by_slug, by_id), (Ok(Accepted::Recorded), Ok(Accepted::Recorded)));
    assert_eq!(
        no_such_slug,
        Ok(Accepted::Unknown {
            access: Some(own.access())
        })
    );
    assert_eq!(
        foreign,
        Ok(Accepted::Unknown {
            access: Some(theirs.access())
        })
    );
    assert_eq!(revoked, Ok(Accepted::Unknown { access: None }));
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_signal_that_cannot_be_written_spoils_no_other_of_its_batch(pool: PgPool) {
    let world = World::new(pool).await;
    let (bad, good) = (world.monitor("bad").await, world.monitor("good").await);
    // This row is there as if another writer had numbered its ping without the lock.
    sqlx::query("INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes) VALUES ($1, 1, $2, 'log', 'http', 0)")
        .bind(bad.id.0)
        .bind(world.clock.now())
        .execute(&world.pool)
        .await
        .unwrap();

    let answers =
        join_all([&good, &bad, &good].map(|to| world.accept(Address::Ping(to.ping_id), Success))).await;

    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Ok(Accepted::Recorded))
            .count(),
        2
    );
    assert!(
        answers[1].is_err(),
        "no acknowledgement, because nothing is stored"
    );
    assert_eq!(world.read(good.id).await.state.ping_count, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_signal_for_a_monitor_that_was_deleted_is_for_nobody(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    monitor::delete(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    let answer = world.accept(Address::Ping(monitor.ping_id), Success).await;

    assert_eq!(answer, Ok(Accepted::Unknown { access: None }));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_brings_a_paused_monitor_back_and_an_event_does_not(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["nightly"]).await;
    let nightly = world.entry("nightly").await;
    monitor::pause(&world.services, &world.access, nightly.id)
        .await
        .unwrap();

    world.finished("nightly", "success").await;
    assert_eq!(world.status(&nightly).await, Status::Paused);
    world.ping(&nightly, Success).await;

    assert_eq!(world.status(&nightly).await, Status::Up);
    assert_eq!(world.read(nightly.id).await.state.ping_count, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn events_of_one_batch_are_taken_in_their_order(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["nightly"]).await;
    let mut events = Vec::new();
    for number in 0..150_u128 {
        let run = json!({"beat": "shop", "entry": "nightly", "run_id": Uuid::from_u128(number)});
        events.push(world.an_event("run_started", run.clone()));
        let mut end = run;
        end["outcome"] = json!(if number % 2 == 0 { "failure" } else { "success" });
        events.push(world.an_event("run_finished", end));
    }

    let verdicts = world.events(events).await;

    assert!(
        verdicts.iter().all(|verdict| *verdict == Verdict::Accepted),
        "{verdicts:?}"
    );
    assert_eq!(
        world
            .count("SELECT count(*) FROM run WHERE duration_ms IS NOT NULL")
            .await,
        150,
        "each start before its end"
    );
    let downs = "SELECT count(*) FROM transition WHERE to_status = 'down'";
    assert_eq!(world.count(downs).await, 75);
    assert_eq!(world.count("SELECT count(*) FROM incident").await, 3, "it flaps");
    assert_eq!(world.status(&world.entry("nightly").await).await, Status::Up);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn instants_beyond_every_calendar_are_judged_and_break_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["nightly"]).await;
    let (first, last) = ("-262143-01-01T00:00:00Z", "+262142-12-31T23:59:59Z");
    let mut due = entry("nightly");
    for (sent_at, at) in [(first, last), (last, first), (last, last), (first, first)] {
        due["next_due_at"] = json!(at);
        let run = json!({"id": Uuid::new_v4(), "at": at, "type": "run_finished", "beat": "shop", "entry": "nightly",
            "run_id": Uuid::new_v4(), "outcome": "success"});
        let schedule = json!({"id": Uuid::new_v4(), "at": at, "type": "beat_schedule", "beat": "shop", "entries": [due.clone()]});

        let verdicts = world
            .batch(json!({"sent_at": sent_at, "events": [run, schedule]}))
            .await
            .unwrap();

        assert_eq!(
            verdicts,
            [Verdict::Accepted, Verdict::Accepted],
            "sent {sent_at}, at {at}"
        );
    }
    let nightly = world.entry("nightly").await;
    assert_eq!((nightly.state.status, nightly.state.ping_count), (Status::Up, 4));
    assert_eq!(
        nightly.state.deadline_at,
        Some(world.now() + TimeDelta::seconds(65))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_nul_character_anywhere_in_an_event_is_no_error_of_the_server(pool: PgPool) {
    let world = World::new(pool).await;
    let mut odd = entry("nightly");
    odd["task"] = json!("a\0b");
    world
        .event(world.an_event("beat_schedule", json!({"beat": "shop", "entries": [odd]})))
        .await;
    let alive = json!({"beat": "shop", "period_seconds": 10.0, "grace_seconds": 20.0, "host": "h\0"});
    world.event(world.an_event("beat_alive", alive)).await;
    let run = json!({"beat": "shop", "entry": "nightly", "run_id": Uuid::new_v4(), "outcome": "failure",
        "task": "\0", "task_id": "\0", "worker": "w\0", "error": "\0E"});
    world.event(world.an_event("run_finished", run)).await;
    let named = json!({"beat": "sh\0op", "period_seconds": 10.0, "grace_seconds": 20.0});
    let verdicts = world.events(vec![world.an_event("beat_alive", named)]).await;

    assert!(
        matches!(
            verdicts[..],
            [Verdict::Rejected {
                code: "invalid_event",
                ..
            }]
        ),
        "{verdicts:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_that_comes_while_the_table_of_its_day_is_made_is_taken(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    let mut making = world.pool.begin().await.unwrap();
    sqlx::query("SELECT make_ping_partitions('2026-01-15', '2026-01-15')")
        .execute(&mut *making)
        .await
        .unwrap();

    // The insert waits for the default table, which refuses the row once another transaction has made the day's own table.
    let made = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while world.count(waiting).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        making.commit().await.unwrap();
    };
    tokio::join!(world.ping(&monitor, Success), made);

    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
    assert_eq!(world.status(&monitor).await, Status::Up);
}
