//! A lost host with all its processes is one incident. A single process that is lost alone has its own incident.

mod alert;

use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_services::celery::event::{self, EventBatch};
use deadbeat_store::people::project::Project;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::World;

/// The reporting processes and their machines: Beat every 10 s with 20 s of grace, workers every 5 s with 25 s of grace.
#[derive(Clone, Default)]
struct Scene {
    beat: Option<&'static str>,
    workers: Vec<(&'static str, &'static str)>,
}

/// A scene with Beat and two workers on one machine, and a third worker on another one.
fn healthy() -> Scene {
    Scene {
        beat: Some("A"),
        workers: vec![("one", "A"), ("two", "A"), ("far", "B")],
    }
}

/// The first machine is switched off.
fn without_a() -> Scene {
    Scene {
        beat: None,
        workers: vec![("far", "B")],
    }
}

impl World {
    async fn beat_ticks_on(&self, machine: &str) {
        let mut alive = json!({"beat": "shop", "period_seconds": 10.0, "grace_seconds": 20.0, "host": "web"});
        alive["boot_id"] = json!(machine);
        self.event(self.an_event("beat_alive", alive)).await;
    }

    /// Goes on in steps of five seconds.
    async fn goes_on(&self, seconds: i64, scene: &Scene) {
        for step in 0..seconds / 5 {
            self.advance(5);
            if let Some(machine) = scene.beat.filter(|_| step % 2 == 0) {
                self.beat_ticks_on(machine).await;
            }
            for (name, machine) in &scene.workers {
                let queue = if *name == "far" { "far" } else { "celery" };
                let said = json!({"host": "web", "boot_id": machine, "queues": [queue]});
                self.worker_says(name, said).await;
            }
            self.sweep().await;
        }
    }

    /// Returns the incidents as (kind, cause, whether open), oldest first.
    async fn kinds(&self) -> Vec<(String, String, bool)> {
        sqlx::query_as("SELECT subject_kind, cause, resolved_at IS NULL FROM incident ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn is_alerted(&self, expected: &[(&str, &str, bool)]) {
        let alerted = self.kinds().await;
        let alerted: Vec<(&str, &str, bool)> = alerted
            .iter()
            .map(|(kind, cause, open)| (kind.as_str(), cause.as_str(), *open))
            .collect();
        assert_eq!(alerted, expected);
    }

    async fn host_words(&self) -> String {
        sqlx::query_scalar("SELECT summary FROM incident")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_host_that_is_lost_is_reported_once_and_ends_when_all_of_it_is_back(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.beat_ticks_on("A").await;
    world.schedule(&["a"]).await;
    world.goes_on(60, &healthy()).await;
    world.is_alerted(&[]).await;

    world.goes_on(35, &without_a()).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    let summary = world.host_words().await;
    assert!(
        summary.starts_with("Nothing on host web reports since "),
        "{summary}"
    );
    assert!(
        summary.ends_with(": Celery Beat of shop and workers one, two fell silent together."),
        "{summary}"
    );

    world.goes_on(120, &without_a()).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    assert_eq!(world.status(&world.entry("a").await).await, Status::Down);
    assert_eq!(world.count("SELECT count(*) FROM incident_member").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM host_part").await, 3);

    // After another start of the machine, its processes come back one by one.
    let mut scene = without_a();
    scene.workers.push(("one", "C"));
    world.goes_on(20, &scene).await;
    let summary = world.host_words().await;
    assert!(
        summary.starts_with(
            "Of what fell silent on host web, Celery Beat of shop and worker two are still silent since "
        ),
        "{summary}"
    );
    scene.beat = Some("C");
    world.goes_on(90, &scene).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    scene.workers.push(("two", "C"));
    world.goes_on(5, &scene).await;
    world.is_alerted(&[("host", "HOST_LOST", false)]).await;
    assert_eq!(world.status(&world.entry("a").await).await, Status::New);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_part_that_goes_alone_is_its_own_incident(pool: PgPool) {
    for (what, goes, alerted) in [
        ("a worker", Some("one"), [("worker", "WORKER_LOST", true)]),
        ("Beat", None, [("beat", "BEAT_DOWN", true)]),
    ] {
        sqlx::query("DELETE FROM project").execute(&pool).await.unwrap();
        let world = World::new(pool.clone()).await;
        world.goes_on(60, &healthy()).await;
        let mut scene = healthy();
        match goes {
            Some(name) => scene.workers.retain(|(one, _)| *one != name),
            None => scene.beat = None,
        }
        world.goes_on(100, &scene).await;
        println!("{what}");
        world.is_alerted(&alerted).await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_was_reported_of_the_first_part_becomes_the_incident_about_the_host(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.goes_on(60, &healthy()).await;
    // A worker that reports each minute, with a grace of a minute.
    let seldom = json!({"host": "web", "boot_id": "A", "period_seconds": 60, "grace_seconds": 60});
    world.worker_says("one", seldom.clone()).await;
    world.worker_says("two", seldom).await;

    world.goes_on(60, &without_a()).await;
    world.is_alerted(&[("beat", "BEAT_DOWN", true)]).await;
    world.goes_on(120, &without_a()).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    assert!(
        world
            .host_words()
            .await
            .contains("Celery Beat of shop and workers one, two")
    );
    assert_eq!(world.count("SELECT count(*) FROM host_part").await, 3);
    world.goes_on(60, &healthy()).await;
    world.is_alerted(&[("host", "HOST_LOST", false)]).await;
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_hosts_of_one_name_and_a_beat_that_does_not_say_where_it_runs_are_distinguished(pool: PgPool) {
    // Both machines are called web. Beat and the worker on its machine stop reporting; the worker on the other machine goes on.
    let world = World::new(pool.clone()).await;
    let all = Scene {
        beat: Some("A"),
        workers: vec![("one", "A"), ("two", "B")],
    };
    world.goes_on(60, &all).await;
    let other = Scene {
        beat: None,
        workers: vec![("two", "B")],
    };
    world.goes_on(60, &other).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    assert!(
        world
            .host_words()
            .await
            .contains("Celery Beat of shop and worker one fell")
    );

    // Beat's machine and the worker's have the same name, and neither machine is lost: these are two faults.
    sqlx::query("DELETE FROM project").execute(&pool).await.unwrap();
    let world = World::new(pool.clone()).await;
    let apart = Scene {
        beat: Some("A"),
        workers: vec![("one", "B"), ("far", "C")],
    };
    world.goes_on(60, &apart).await;
    let far = Scene {
        beat: None,
        workers: vec![("far", "C")],
    };
    world.goes_on(60, &far).await;
    world
        .is_alerted(&[("beat", "BEAT_DOWN", true), ("worker", "WORKER_LOST", true)])
        .await;

    // The SDK of Beat does not report its boot id, so the incidents are separate.
    sqlx::query("DELETE FROM project").execute(&pool).await.unwrap();
    let world = World::new(pool).await;
    for _ in 0..6 {
        world.advance(5);
        world.alive().await;
        world
            .worker_says("one", json!({"boot_id": "A", "host": "h1"}))
            .await;
        world
            .worker_says("far", json!({"boot_id": "B", "host": "h1"}))
            .await;
    }
    for _ in 0..12 {
        world.advance(5);
        world
            .worker_says("far", json!({"boot_id": "B", "host": "h1"}))
            .await;
        world.sweep().await;
    }
    world
        .is_alerted(&[("beat", "BEAT_DOWN", true), ("worker", "WORKER_LOST", true)])
        .await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_left_in_good_order_is_not_lost_with_its_host(pool: PgPool) {
    let world = World::new(pool).await;
    world.goes_on(60, &healthy()).await;
    // All processes move to another machine: the workers under new names, Beat some seconds later.
    for name in ["one", "two"] {
        let bye = json!({"host": "web", "boot_id": "A", "state": "stopped"});
        world.worker_says(name, bye).await;
    }
    let mut scene = without_a();
    scene.workers.extend([("three", "C"), ("four", "C")]);
    world.goes_on(20, &scene).await;
    scene.beat = Some("C");
    world.goes_on(90, &scene).await;
    world.is_alerted(&[]).await;

    // A laptop stops all its processes, and Beat does not report its end.
    for name in ["three", "four", "far"] {
        world
            .worker_says(name, json!({"state": "stopped", "boot_id": "C"}))
            .await;
    }
    world.goes_on(90, &Scene::default()).await;
    world.is_alerted(&[("beat", "BEAT_DOWN", true)]).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_host_that_works_and_does_not_reach_us_is_reported_after_a_quarter_of_an_hour(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.beat_ticks_on("A").await;
    world.schedule(&["a"]).await;
    world.goes_on(60, &healthy()).await;
    // Each minute, another host's worker receives runs that Beat sent meanwhile.
    for minute in 0..14 {
        world.goes_on(20, &without_a()).await;
        let run = json!({
            "beat": "shop", "entry": "a", "run_id": Uuid::from_u128(minute + 1), "worker": "far", "queue": "far",
            "published_at": world.now(),
        });
        world.event(world.an_event("run_started", run.clone())).await;
        let mut end = run;
        end["outcome"] = json!("success");
        world.event(world.an_event("run_finished", end)).await;
        world.goes_on(40, &without_a()).await;
        assert_eq!(world.kinds().await, [], "minute {minute}");
    }
    world.goes_on(120, &without_a()).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(
        evidence.to_string().contains("cannot reach this server"),
        "{evidence}"
    );
    world.goes_on(60, &healthy()).await;
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn when_the_machine_goes_on_the_incident_becomes_that_of_the_one_that_is_missing(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.goes_on(60, &healthy()).await;
    world.goes_on(60, &without_a()).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;

    // The machine was cut off from the network, and Beat has died meanwhile.
    let mut scene = healthy();
    scene.beat = None;
    world.goes_on(50, &scene).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    world.goes_on(30, &scene).await;
    world.is_alerted(&[("beat", "BEAT_DOWN", true)]).await;
    assert!(
        world
            .host_words()
            .await
            .starts_with("Celery Beat of shop is silent since")
    );
    world.goes_on(30, &healthy()).await;
    world.is_alerted(&[("beat", "BEAT_DOWN", false)]).await;
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn several_processes_that_sweep_at_once_report_a_host_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let other = world.another_evaluator();
    for round in 0..3 {
        world.goes_on(60, &healthy()).await;
        for _ in 0..10 {
            world.advance(5);
            world
                .worker_says("far", json!({"host": "web", "boot_id": "B"}))
                .await;
            let (one, two) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());
            one.unwrap();
            two.unwrap();
        }
        world
            .is_alerted(
                &vec![("host", "HOST_LOST", false); round]
                    .into_iter()
                    .chain([("host", "HOST_LOST", true)])
                    .collect::<Vec<_>>(),
            )
            .await;
        for _ in 0..3 {
            world.advance(5);
            world.beat_ticks_on("A").await;
            world
                .worker_says("one", json!({"host": "web", "boot_id": "A"}))
                .await;
            world
                .worker_says("two", json!({"host": "web", "boot_id": "A"}))
                .await;
            world
                .worker_says("far", json!({"host": "web", "boot_id": "B"}))
                .await;
            let (one, two) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());
            one.unwrap();
            two.unwrap();
        }
        assert_eq!(world.alerts().await.len(), 2 * (round + 1));
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_neither_sees_nor_saves_another_ones_host(pool: PgPool) {
    let world = World::new(pool).await;
    let stranger = Project {
        id: ProjectId::generate(),
        name: "Another project".to_owned(),
        reminder_seconds: None,
        created_at: world.now(),
    };
    let mut tx = world.store().begin().await.unwrap();
    deadbeat_store::people::project::insert(&mut tx, &stranger)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    world.goes_on(60, &healthy()).await;
    for _ in 0..12 {
        // The sender claims that its worker runs on the machine that is off.
        let said = json!({
            "app": "shop", "worker": "one", "host": "web", "boot_id": "A", "state": "running", "period_seconds": 5, "grace_seconds": 25,
        });
        let batch = json!({"sent_at": world.now(), "events": [world.an_event("worker_snapshot", said)]});
        let batch: EventBatch = serde_json::from_value(batch).unwrap();
        let theirs = Access::new(stranger.id, Actor::Operator);
        event::accept(&world.services, &theirs, batch, world.now(), None)
            .await
            .unwrap();
        world.goes_on(5, &without_a()).await;
    }
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    let projects: Vec<Uuid> = sqlx::query_scalar("SELECT project_id FROM incident")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(projects, [world.project.0]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_host_of_many_workers_is_reported_in_a_bounded_text(pool: PgPool) {
    let world = World::new(pool).await;
    for number in 0..40 {
        let name = format!("w{number:02}");
        world
            .worker_says(&name, json!({"host": "web", "boot_id": "A"}))
            .await;
    }
    world.sweep_after(31).await;
    world.is_alerted(&[("host", "HOST_LOST", true)]).await;
    let summary = world.host_words().await;
    assert!(
        summary.contains("w08, w09 and 30 more fell silent together"),
        "{summary}"
    );
    assert_eq!(world.count("SELECT count(*) FROM host_part").await, 40);
    let evidence: Value = sqlx::query_scalar("SELECT evidence FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(evidence.as_array().unwrap().len() <= 13, "{evidence}");
    // A container never comes back: its workers are given up, and the incident ends.
    world.sweep_after(3_605).await;
    world.sweep_after(2).await;
    world.is_alerted(&[("host", "HOST_LOST", false)]).await;
}

/// The network works again, and the SDKs of the host's processes retry at different times.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_worker_that_returns_after_its_beat_from_a_cut_off_host_is_not_reported(pool: PgPool) {
    let world = World::new(pool).await;
    let ticks = |started_at: chrono::DateTime<chrono::Utc>| {
        json!({
            "beat": "shop", "period_seconds": 5.0, "grace_seconds": 60.0, "host": "web", "boot_id": "A",
            "boot": Uuid::from_u128(7), "started_at": started_at,
        })
    };
    let started_at = world.now();
    let one = json!({"host": "web", "boot_id": "A", "incarnation": Uuid::from_u128(8)});
    for _ in 0..10 {
        world.advance(5);
        world.event(world.an_event("beat_alive", ticks(started_at))).await;
        world.worker_says("one", one.clone()).await;
    }
    world.sweep_after(28).await;
    world.event(world.an_event("beat_alive", ticks(started_at))).await;
    // The worker's report is overdue.
    for _ in 0..14 {
        world.sweep_after(1).await;
    }
    world.is_alerted(&[]).await;
    world.worker_says("one", one.clone()).await;
    world.goes_on(5, &Scene::default()).await;
    world.is_alerted(&[]).await;

    // If Beat then does not return, it gets an incident of its own.
    world.advance(28);
    world.event(world.an_event("beat_alive", ticks(started_at))).await;
    for _ in 0..17 {
        world.sweep_after(1).await;
        world.event(world.an_event("beat_alive", ticks(started_at))).await;
    }
    world.is_alerted(&[("worker", "WORKER_LOST", true)]).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn of_many_lost_hosts_each_has_its_turn_a_hundred_a_second(pool: PgPool) {
    let world = World::new(pool).await;
    // All processes of these hosts have left: each incident ends at its first check.
    sqlx::query(
        "INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at)
        SELECT gen_random_uuid(), $1, 'host', gen_random_uuid(), 'host-' || n, 'HOST_LOST', 'Lost.', '[]', '[]', $2 FROM generate_series(1, 250) AS n",
    )
    .bind(world.project.0)
    .bind(world.now())
    .execute(&world.pool)
    .await
    .unwrap();

    for left in [150, 50, 0] {
        world.sweep_after(1).await;
        let open = "SELECT count(*) FROM incident WHERE resolved_at IS NULL";
        assert_eq!(world.count(open).await, left);
    }
}
