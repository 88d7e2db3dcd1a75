//! The result backend: workers and Beat report whether it answers.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted};

/// The report of a process that waits for the result backend.
fn hangs(since: chrono::DateTime<chrono::Utc>, now: chrono::DateTime<chrono::Utc>) -> Value {
    json!({
        "address": "redis://10.0.0.7:6379/1", "operation": "store_result", "since": since, "last_at": now, "hanging": 2, "failing": 0,
    })
}

fn answered(at: chrono::DateTime<chrono::Utc>) -> Value {
    json!({"address": "redis://10.0.0.7:6379/1", "answered_at": at})
}

/// The reports of five seconds, by sender.
#[derive(Default)]
struct Said {
    workers: Vec<(&'static str, Value)>,
    beat: Value,
    is_beat_hung: bool,
    is_broker_away: bool,
    is_broker_unsampled: bool,
}

impl World {
    async fn five_seconds(&self, said: &Said) {
        self.advance(5);
        let mut alive = json!({
            "beat": "shop", "period_seconds": 15, "grace_seconds": 60, "ticking": !said.is_beat_hung,
        });
        alive["result_backend"] = said.beat.clone();
        self.event(self.an_event("beat_alive", alive)).await;
        for (name, backend) in &said.workers {
            self.worker_says(
                name,
                json!({"processes": 2, "running": [], "result_backend": backend}),
            )
            .await;
        }
        if !said.is_broker_unsampled {
            let sample = json!({"app": "shop", "worker": "w1", "reachable": !said.is_broker_away, "queues": [{"name": "celery", "depth": 0}]});
            self.event(self.an_event("broker_sample", sample)).await;
        }
        self.sweep().await;
    }

    /// A worker waits for some seconds, from now on.
    async fn wait(&self, seconds: i64, said: impl Fn(Value) -> Said) {
        let since = self.now();
        for _ in 0..seconds / 5 {
            let now = self.now() + chrono::TimeDelta::seconds(5);
            self.five_seconds(&said(hangs(since, now))).await;
        }
    }

    async fn backend_id(&self) -> Uuid {
        sqlx::query_scalar("SELECT id FROM broker WHERE project_id = $1 AND app = 'shop'")
            .bind(self.project.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn well(&self) {
        let at = self.now() + chrono::TimeDelta::seconds(4);
        self.five_seconds(&Said {
            workers: vec![("w1", answered(at))],
            beat: answered(at),
            ..Said::default()
        })
        .await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_backend_that_beat_and_a_worker_wait_for_is_one_incident_with_their_entries(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    world.well().await;
    world.schedule(&["a"]).await;
    world.well().await;

    world
        .wait(180, |hangs| Said {
            workers: vec![("w1", hangs.clone())],
            beat: hangs,
            is_beat_hung: true,
            ..Said::default()
        })
        .await;

    let backend = world.backend_id().await;
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", true)]
    );
    assert_eq!(world.members().await, 1);
    let (name, summary): (String, String) = sqlx::query_as("SELECT subject_name, summary FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(name, "redis://10.0.0.7:6379/1");
    assert!(summary.contains("does not answer"), "{summary}");

    world.well().await;
    world.well().await;
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", false)]
    );
    assert_eq!(
        world.deliveries().await,
        [("opened".to_owned(), channel), ("resolved".to_owned(), channel)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slow_backend_and_one_that_blips_are_not_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.well().await;

    for _ in 0..20 {
        // Each report shows a call that began a moment before.
        world
            .wait(5, |hangs| Said {
                workers: vec![("w1", hangs)],
                ..Said::default()
            })
            .await;
    }
    world
        .wait(15, |hangs| Said {
            workers: vec![("w1", hangs)],
            ..Said::default()
        })
        .await;
    world.well().await;

    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn with_a_broker_that_is_away_it_is_the_broker(pool: PgPool) {
    let world = World::new(pool).await;
    world.well().await;

    world
        .wait(100, |hangs| Said {
            workers: vec![("w1", hangs)],
            is_broker_away: true,
            ..Said::default()
        })
        .await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.backend_id().await, "BROKER_DOWN", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn where_nobody_samples_the_broker_it_is_reported_after_a_minute(pool: PgPool) {
    let world = World::new(pool).await;
    world.well().await;
    let said = |hangs| Said {
        workers: vec![("w1", Value::Null)],
        beat: hangs,
        is_beat_hung: true,
        is_broker_unsampled: true,
        ..Said::default()
    };

    world.wait(55, said).await;
    assert_eq!(world.incidents().await, []);
    world.wait(120, said).await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.backend_id().await, "RESULT_BACKEND_DOWN", true)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_starts_anew_knows_of_no_answer_and_ends_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.well().await;
    world
        .wait(40, |hangs| Said {
            workers: vec![("w1", hangs)],
            beat: json!({"address": "redis://10.0.0.7:6379/1"}),
            ..Said::default()
        })
        .await;
    let backend = world.backend_id().await;
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", true)]
    );

    let knows_nothing = json!({"address": "redis://10.0.0.7:6379/1"});
    for _ in 0..30 {
        world
            .five_seconds(&Said {
                workers: vec![("w1", knows_nothing.clone())],
                beat: knows_nothing.clone(),
                ..Said::default()
            })
            .await;
    }
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", true)]
    );

    // Another result backend answers and never had a fault. Reports about it count once a minute.
    for _ in 0..13 {
        world.well().await;
    }
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", false)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_that_nobody_uses_any_more_is_given_up_after_an_hour(pool: PgPool) {
    let world = World::new(pool).await;
    world.well().await;
    world
        .wait(40, |hangs| Said {
            workers: vec![("w1", hangs)],
            ..Said::default()
        })
        .await;

    for _ in 0..62 {
        world.advance(55);
        world.five_seconds(&Said::default()).await;
    }

    let alerted_of: Vec<bool> = world
        .incidents()
        .await
        .into_iter()
        .filter(|one| one.cause == "RESULT_BACKEND_DOWN")
        .map(|one| one.open)
        .collect();
    assert_eq!(alerted_of, [false]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_that_cannot_end_keeps_no_other_projects_from_ending(pool: PgPool) {
    let world = World::new(pool).await;
    // Each of three projects has an incident about a backend that nobody uses any more. The second project's incident cannot be updated.
    for number in 1..=3_u128 {
        sqlx::query("INSERT INTO project (id, name, created_at) VALUES ($1, 'p', $2)")
            .bind(Uuid::from_u128(number))
            .bind(world.now())
            .execute(&world.pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at)
            VALUES ($1, $1, 'result_backend', $1, 'redis://h/1', 'RESULT_BACKEND_DOWN', 's', '[]', '[]', $2)",
        )
        .bind(Uuid::from_u128(number))
        .bind(world.now())
        .execute(&world.pool)
        .await
        .unwrap();
    }
    sqlx::query("ALTER TABLE incident ADD CONSTRAINT poison CHECK (subject_id::text NOT LIKE '%2' OR resolved_at IS NULL)")
        .execute(&world.pool)
        .await
        .unwrap();

    world.sweep_after(61).await;

    let over: Vec<bool> = world.incidents().await.iter().map(|one| !one.open).collect();
    assert_eq!(over, [true, false, true]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn nonsense_in_a_report_is_bounded_and_stalls_nobody(pool: PgPool) {
    let world = World::new(pool).await;
    world.well().await;
    let nonsense = json!({
        "address": "x".repeat(100_000), "operation": "\u{1b}[31mstore\nresult", "since": "0001-01-01T00:00:00Z",
        "last_at": "9999-12-31T23:59:59Z", "answered_at": "9999-12-31T23:59:59Z", "hanging": i64::MAX, "failing": i64::MIN,
        "error": "e".repeat(100_000),
    });
    for _ in 0..10 {
        world
            .five_seconds(&Said {
                workers: vec![("w1", nonsense.clone()), ("w2", nonsense.clone())],
                beat: nonsense.clone(),
                ..Said::default()
            })
            .await;
    }

    let backend = world.backend_id().await;
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", true)]
    );
    let alerted: String =
        sqlx::query_scalar("SELECT subject_name || summary || evidence::text FROM incident")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(alerted.len() < 10_000, "{} bytes", alerted.len());
    assert!(!alerted.contains('\u{1b}'), "{alerted}");
    world.well().await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_was_broken_off_in_an_outage_is_part_of_it_although_its_worker_is_answered_first(
    pool: PgPool,
) {
    let world = World::new(pool).await;
    world.well().await;
    world.schedule(&["a"]).await;
    world.well().await;
    let since = world.now();
    for _ in 0..8 {
        let hangs = hangs(since, world.now() + chrono::TimeDelta::seconds(5));
        world
            .five_seconds(&Said {
                workers: vec![("w1", hangs.clone())],
                beat: hangs,
                is_beat_hung: true,
                ..Said::default()
            })
            .await;
    }
    let backend = world.backend_id().await;
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", true)]
    );

    // The worker cannot store the result of the run. The backend answers the worker right after that, but not Beat.
    let run = json!({
        "beat": "shop", "entry": "a", "run_id": Uuid::new_v4(), "worker": "w1", "queue": "celery", "attempt": Uuid::new_v4(),
    });
    world.event(world.an_event("run_started", run.clone())).await;
    let mut ended = run;
    ended["outcome"] = json!("aborted");
    world.event(world.an_event("run_finished", ended)).await;
    for _ in 0..4 {
        let at = world.now() + chrono::TimeDelta::seconds(4);
        world
            .five_seconds(&Said {
                workers: vec![("w1", answered(at))],
                beat: hangs(since, at),
                is_beat_hung: true,
                ..Said::default()
            })
            .await;
    }
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", true)]
    );

    world.well().await;
    world.well().await;
    assert_eq!(
        world.incidents().await,
        [alerted(backend, "RESULT_BACKEND_DOWN", false)]
    );
}
