//! The history of runs: reports of several processes become one row, once. Deadbeat closes runs that never end, and removes old ones.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use deadbeat_domain::celery::trace::{Outcome, Stage, StageKind, StageReport, TraceState};
use deadbeat_services::ServiceError;
use deadbeat_services::celery::event::{self, EventBatch, Verdict};
use deadbeat_services::celery::trace::lost::Lost;
use deadbeat_services::celery::trace::{NewStage, Traces};
use deadbeat_services::operation::retention::{Kind, Retention, RetentionSettings};
use deadbeat_services::operation::supervisor::Health;
use deadbeat_store::connection::turns::Turns;
use deadbeat_store::{PoolSettings, Store};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::setup::World;

impl World {
    /// Makes a stage of the run of that number, which Beat did not send.
    fn stage(&self, kind: &str, run: u128, mut more: Value) -> Value {
        let fields = json!({"beat": "shop", "entry": null, "run_id": Uuid::from_u128(run), "task": "shop.pay", "worker": "celery@w1"});
        let given = more.as_object_mut().unwrap();
        for (name, value) in fields.as_object().unwrap() {
            given.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.an_event(kind, more)
    }

    async fn state(&self, run: u128) -> String {
        sqlx::query_scalar("SELECT state FROM trace WHERE run_id = $1")
            .bind(Uuid::from_u128(run))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn open(&self) -> i64 {
        self.count("SELECT count(*) FROM open_trace").await
    }

    fn lost(&self) -> Lost {
        Lost::new(self.store(), Arc::new(self.clock.clone()))
    }
}

fn started(run: u128) -> NewStage {
    let stage = Stage {
        id: Uuid::new_v4(),
        kind: StageKind::Started,
        at: "2026-03-02T01:00:00Z".parse().unwrap(),
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
    };
    NewStage {
        run_id: Uuid::from_u128(run),
        app: "shop".to_owned(),
        entry: None,
        monitor_id: None,
        reported: StageReport {
            stage,
            task: None,
            task_id: None,
            slot: None,
            eta: None,
            published_at: None,
        },
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_batch_that_is_sent_again_changes_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let events = vec![
        world.stage("run_published", 1, json!({"queue": "mail"})),
        world.stage("run_started", 1, json!({"attempt": Uuid::from_u128(9)})),
        world.stage(
            "run_retried",
            1,
            json!({"attempt": Uuid::from_u128(9), "error": "Timeout"}),
        ),
    ];
    let rows = async || -> Vec<Value> {
        sqlx::query_scalar("SELECT to_jsonb(trace) FROM trace ORDER BY run_id")
            .fetch_all(&world.pool)
            .await
            .unwrap()
    };
    world.events(events.clone()).await;
    let before = rows().await;
    assert_eq!(before[0]["state"], "retried");

    world.advance(60);
    // The timestamps are the client's. The client sends the batch again later, with the same clock skew.
    let batch = json!({"sent_at": world.now() - TimeDelta::seconds(60), "events": events});
    assert_eq!(world.batch(batch).await.unwrap(), vec![Verdict::Accepted; 3]);

    assert_eq!(rows().await, before);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn several_processes_that_write_the_same_runs_lose_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let stop = CancellationToken::new();
    let doors: Vec<Traces> = (0..3)
        .map(|_| {
            let (door, writer) = Traces::new(&world.store());
            tokio::spawn(writer.run(Health::default(), stop.clone()));
            door
        })
        .collect();
    let _stop = stop.drop_guard();

    // Each batch reports one stage of each of 50 runs, in another order.
    let (project, now) = (world.project, world.now());
    let reported = doors.iter().enumerate().flat_map(|(number, door)| {
        (0..10_u128).map(move |part| {
            let mut stages: Vec<NewStage> = (0..50).map(|run| started((run * 7 + part) % 50)).collect();
            if number % 2 == 0 {
                stages.reverse();
            }
            door.accept(project, now, stages)
        })
    });
    for accepted in join_all(reported).await {
        accepted.unwrap();
    }

    assert_eq!(world.count("SELECT count(*) FROM trace").await, 50);
    assert_eq!(
        world
            .count("SELECT count(*) FROM trace WHERE attempts = 30 AND jsonb_array_length(stages) = 30")
            .await,
        50
    );
    assert_eq!(world.open().await, 50);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_new_database_samples_each_run_up_by_its_key(options: PgPoolOptions, database: PgConnectOptions) {
    let world = World::new(options.connect_with(database.clone()).await.unwrap()).await;
    let store = Store::connect(&PoolSettings {
        url: database.to_url_lossy().to_string(),
        size: 1,
        wait: Duration::from_secs(60),
        answer: Duration::from_secs(60),
        usual: None,
    })
    .unwrap();
    let (door, writer) = Traces::new(&store);
    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(Health::default(), stop.clone()));
    let report = async |runs: Range<u128>| {
        door.accept(world.project, world.now(), runs.map(started).collect())
            .await
            .unwrap();
    };

    // From the sixth execution on, PostgreSQL may keep one plan for all parameters. The table is almost empty then.
    for run in 0..10 {
        report(run..run + 1).await;
    }
    for batch in 0..40 {
        report(batch * 100..(batch + 1) * 100).await;
    }

    // PostgreSQL counts the rows that a connection read when the connection ends, or earlier.
    stop.cancel();
    running.await.unwrap();
    store.close().await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'deadbeat'";
    let ended = async {
        while world.count(others).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("its connection ends");
    let read = world
        .count(
            "SELECT (seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables WHERE relname = 'trace'",
        )
        .await;
    // While a table has some hundred rows, PostgreSQL may still find the runs of a batch by their project.
    assert!(read < 1_000_000, "4,000 runs read {read} rows");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_large_batch_gives_its_turn_back_before_its_runs_are_committed(pool: PgPool) {
    let world = World::new(pool).await;
    let turns = Turns::new(1, 1, Duration::from_secs(60));
    let batch = json!({"sent_at": world.now(), "events": [world.stage("run_started", 1, json!({}))]});
    let mut batch: EventBatch = serde_json::from_value(batch).unwrap();
    batch.turn = turns.take(world.project).await;
    // The writer of the history waits for this lock.
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE trace").execute(&mut *lock).await.unwrap();
    let (services, access, now) = (world.services.clone(), world.access, world.now());
    let accepting =
        tokio::spawn(async move { event::accept(&services, &access, batch, now, None).await.unwrap() });

    turns
        .take(world.project)
        .await
        .expect("the turn of the next batch");

    assert!(!accepting.is_finished());
    lock.rollback().await.unwrap();
    assert_eq!(accepting.await.unwrap()[0].1, Verdict::Accepted);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_does_not_fit_into_the_queue_is_refused(pool: PgPool) {
    let world = World::new(pool).await;
    // The writer does not run yet.
    let (door, writer) = Traces::new(&world.store());
    let stages = || -> Vec<NewStage> { (0..1_000).map(started).collect() };
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let (door, project, now, stages) = (door.clone(), world.project, world.now(), stages());
            tokio::spawn(async move { door.accept(project, now, stages).await })
        })
        .collect();
    while door.waiting() < 16_000 {
        tokio::task::yield_now().await;
    }

    let refused = door.accept(world.project, world.now(), stages()).await;
    assert!(matches!(refused, Err(ServiceError::Busy)), "{refused:?}");

    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(Health::default(), stop.clone()));
    for accepted in waiting {
        accepted.await.unwrap().unwrap();
    }
    assert_eq!(door.waiting(), 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM trace WHERE attempts = 16")
            .await,
        1_000
    );
    stop.cancel();
    running.await.unwrap();
    let stopped = door.accept(world.project, world.now(), stages()).await;
    assert!(matches!(stopped, Err(ServiceError::Busy)), "{stopped:?}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_whose_worker_is_gone_is_closed_as_lost_and_a_late_report_corrects_it(pool: PgPool) {
    let world = World::new(pool).await;
    let attempt = json!({"attempt": Uuid::from_u128(9)});
    world.worker_says("celery@w1", json!({})).await;
    world.worker_says("celery@w2", json!({})).await;
    world
        .events(vec![
            world.stage("run_started", 1, attempt.clone()),
            world.stage("run_started", 2, json!({"worker": "celery@w2"})),
            world.stage("run_received", 3, json!({})),
        ])
        .await;
    let began = world.now();
    // w1 stops reporting, and w2 goes on.
    for _ in 0..11 {
        world.advance(60);
        world.worker_says("celery@w2", json!({})).await;
        world.sweep().await;
        if world.now() - began <= TimeDelta::minutes(10) {
            assert_eq!(world.lost().close_once().await.unwrap(), 0);
        }
    }

    assert_eq!(world.lost().close_once().await.unwrap(), 1);

    assert_eq!(world.state(1).await, "lost");
    assert_eq!(
        (world.state(2).await.as_str(), world.state(3).await.as_str()),
        ("started", "received")
    );
    assert_eq!(world.open().await, 1);
    assert_eq!(world.lost().close_once().await.unwrap(), 0);
    let stored =
        deadbeat_store::celery::trace::get(&world.services.reader(), world.project, Uuid::from_u128(1))
            .await
            .unwrap()
            .unwrap();
    assert_eq!(stored.trace.state(), TraceState::Ended(Outcome::Lost));
    assert_eq!(
        stored.trace.error(),
        Some("its worker is gone, and its end was not reported")
    );

    // The process had only lost its network connection.
    world
        .event(world.stage(
            "run_finished",
            1,
            json!({"attempt": Uuid::from_u128(9), "outcome": "success"}),
        ))
        .await;
    assert_eq!(world.state(1).await, "success");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_goes_on_elsewhere_is_not_lost_with_its_first_worker(pool: PgPool) {
    let world = World::new(pool).await;
    world.worker_says("celery@w1", json!({})).await;
    world
        .event(world.stage("run_started", 1, json!({"attempt": Uuid::from_u128(1)})))
        .await;
    world.advance(60);
    world.worker_says("celery@w2", json!({})).await;
    let again = json!({"attempt": Uuid::from_u128(2), "worker": "celery@w2", "redelivered": true});
    world.event(world.stage("run_started", 1, again)).await;
    for _ in 0..15 {
        world.advance(60);
        world.worker_says("celery@w2", json!({})).await;
        world.sweep().await;
        assert_eq!(world.lost().close_once().await.unwrap(), 0);
    }
    assert_eq!(world.state(1).await, "started");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_whose_worker_was_started_anew_under_its_name_is_lost_after_ten_minutes(pool: PgPool) {
    let world = World::new(pool).await;
    let process = |number: u128| json!({"incarnation": Uuid::from_u128(number), "started_at": world.now()});
    world.worker_says("celery@w1", process(1)).await;
    world.advance(10);
    world.event(world.stage("run_started", 1, json!({}))).await;
    world.advance(10);
    world.worker_says("celery@w1", process(2)).await;
    // By then, the sweep has ended and removed the first process.
    for _ in 0..12 {
        world.advance(5);
        world
            .worker_says("celery@w1", json!({"incarnation": Uuid::from_u128(2)}))
            .await;
        world.sweep().await;
    }
    world.worker_says("celery@w1", process(2)).await;
    world.event(world.stage("run_started", 2, json!({}))).await;
    assert_eq!(
        world.lost().close_once().await.unwrap(),
        0,
        "reports may be on their way"
    );
    world.advance(601);

    assert_eq!(world.lost().close_once().await.unwrap(), 1);

    assert_eq!(world.state(1).await, "lost");
    assert_eq!(
        world.state(2).await,
        "started",
        "the run began in the process that lives"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_began_a_week_ago_is_lost_even_if_its_worker_lives(pool: PgPool) {
    let world = World::new(pool).await;
    world.event(world.stage("run_started", 1, json!({}))).await;
    world.clock.advance(TimeDelta::days(7));
    world.worker_says("celery@w1", json!({})).await;
    assert_eq!(world.lost().close_once().await.unwrap(), 0);
    world.advance(1);
    world.worker_says("celery@w1", json!({})).await;

    assert_eq!(world.lost().close_once().await.unwrap(), 1);

    assert_eq!(world.state(1).await, "lost");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn old_traces_go_and_a_deleted_project_takes_its_own_along(pool: PgPool) {
    let world = World::new(pool).await;
    world.event(world.stage("run_started", 1, json!({}))).await;
    world.clock.advance(TimeDelta::days(29));
    world.event(world.stage("run_started", 2, json!({}))).await;
    world.clock.advance(TimeDelta::days(1) + TimeDelta::seconds(1));
    let clock = Arc::new(world.clock.clone());
    let retention = Retention::new(world.store(), clock, RetentionSettings::default(), Arc::default());

    assert_eq!(retention.pass_once().await.unwrap().of(Kind::Traces), 1);

    assert_eq!(world.state(2).await, "started");
    assert_eq!(world.open().await, 1);
    sqlx::query("DELETE FROM project")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.count("SELECT count(*) FROM trace").await, 0);
    assert_eq!(world.open().await, 0);
}
