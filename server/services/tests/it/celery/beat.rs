//! A Beat that stops reporting: one incident for all entries that it sends, and the fate of these entries.

mod app_name_shared;
mod clock;
mod comes_back;
mod crash_loop;
mod due_hint;
mod schedule_emptied;
mod several_at_once;

use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::celery::event::Verdict;
use deadbeat_services::{ServiceError, monitor};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted, entry};

impl World {
    /// Beat reports its schedule, and its entries report for a while. Then Beat stops reporting, and the evaluator declares it down.
    pub async fn silent_beat(&self, entries: &[&str]) -> Uuid {
        self.schedule(entries).await;
        self.alive().await;
        for entry in entries {
            self.finished(entry, "success").await;
        }
        // Beat does not send the slots at 60. It reported last at 0 and is down at 30; the evaluator judges the monitors at 65.
        for _ in 0..10 {
            self.sweep_after(10).await;
        }
        self.beat_id().await
    }

    pub async fn beat_id(&self) -> Uuid {
        sqlx::query_scalar("SELECT id FROM beat WHERE project_id = $1")
            .bind(self.project.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub async fn members(&self) -> i64 {
        self.count("SELECT count(*) FROM incident_member").await
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_silent_beat_is_one_incident_that_its_monitors_join(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;

    let beat = world.silent_beat(&["a", "b", "c"]).await;

    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", true)]);
    assert_eq!(world.deliveries().await, [("opened".to_owned(), channel)]);
    assert_eq!(world.members().await, 3);
    for name in ["a", "b", "c"] {
        assert_eq!(world.entry(name).await.state.status, Status::Down);
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slot_missed_by_a_living_beat_is_the_monitors_own_trouble(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a"]).await;
    for _ in 0..7 {
        world.alive().await;
        world.sweep_after(10).await;
    }

    assert_eq!(
        world.incidents().await,
        [alerted(world.entry("a").await.id.0, "UNKNOWN", true)]
    );
    assert_eq!(world.members().await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_waits_for_the_verdict_on_beat_before_it_is_blamed(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a"]).await;
    world.advance(50);
    world.alive().await;

    let swept = world.sweep_after(15).await;
    assert_eq!(
        (swept.claimed, swept.down),
        (1, 0),
        "past its deadline at 65; Beat reported last at 50, before the slot"
    );
    assert_eq!(world.sweep_after(14).await.down, 0);
    assert_eq!(world.sweep_after(1).await.down, 1, "Beat, at 80");
    assert_eq!(world.sweep_after(2).await.down, 1, "then its monitor");

    assert_eq!(
        world.incidents().await,
        [alerted(world.beat_id().await, "BEAT_DOWN", true)]
    );
    assert_eq!(world.members().await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_reports_in_time_frees_the_held_monitor_to_be_judged_alone(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.advance(50);
    world.alive().await;
    world.sweep_after(15).await;
    world.alive().await;
    world.finished("b", "success").await;

    world.sweep_after(17).await;

    assert_eq!(
        world.incidents().await,
        [alerted(world.entry("a").await.id.0, "UNKNOWN", true)]
    );
    assert_eq!(world.entry("b").await.state.status, Status::Up);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_that_leaves_the_schedule_is_retired_and_resolves_its_incident(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    world.schedule(&["a", "b"]).await;
    world.finished("a", "failure").await;

    world.schedule(&["b"]).await;

    let a = world.entry("a").await;
    assert_eq!((a.state.status, a.state.retired), (Status::Paused, true));
    assert_eq!(world.incidents().await, [alerted(a.id.0, "FAILED", false)]);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    world.schedule(&["a", "b"]).await;
    let a = world.entry("a").await;
    assert_eq!(
        (a.state.status, a.state.retired),
        (Status::New, false),
        "the entry is listed again, and armed"
    );
    assert!(a.state.deadline_at.is_some());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_retired_monitor_cannot_be_resumed_into_a_false_alarm(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a", "b"]).await;
    world.schedule(&["b"]).await;
    let a = world.entry("a").await;

    let resumed = monitor::resume(&world.services, &world.access, a.id).await;

    assert!(matches!(resumed, Err(ServiceError::Conflict(_))), "{resumed:?}");
    for _ in 0..20 {
        world.alive().await;
        world.finished("b", "success").await;
        world.sweep_after(10).await;
    }
    assert!(world.incidents().await.is_empty());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_disabled_entry_is_not_armed_and_an_enabled_one_is_again(pool: PgPool) {
    let world = World::new(pool).await;
    let report = async |enabled: bool| {
        let mut a = entry("a");
        a["enabled"] = json!(enabled);
        world
            .event(world.an_event("beat_schedule", json!({"beat": "shop", "entries": [a]})))
            .await;
    };

    report(false).await;
    assert_eq!(world.entry("a").await.state.deadline_at, None);
    assert_eq!(world.sweep_after(600).await.claimed, 0);
    report(true).await;

    let a = world.entry("a").await;
    assert_eq!(
        a.state.deadline_at,
        Some(world.now() + chrono::TimeDelta::seconds(65))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_entry_that_cannot_be_read_does_not_keep_the_others_from_being_watched(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["known"]).await;
    let mut odd = entry("odd");
    odd["schedule"] = json!({"kind": "cron", "expression": "0 0 31 2 *"});
    let mut known = entry("known");
    known["grace_seconds"] = json!(-1.0);
    let entries = json!([odd, known, entry("good")]);

    let verdicts = world
        .events(vec![world.an_event(
            "beat_schedule",
            json!({"beat": "shop", "entries": entries}),
        )])
        .await;

    assert!(
        matches!(
            verdicts[..],
            [Verdict::Rejected {
                code: "some_entries",
                ..
            }]
        ),
        "{verdicts:?}"
    );
    assert!(world.entry("good").await.state.deadline_at.is_some());
    assert_eq!(
        world.entry("known").await.state.status,
        Status::New,
        "neither removed nor retired"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_row_that_cannot_be_read_stalls_neither_its_beats_schedule_nor_its_return(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.silent_beat(&["bad", "good"]).await;
    sqlx::query("UPDATE monitor SET schedule = '{\"kind\": \"of a newer server\"}' WHERE entry = 'bad'")
        .execute(&world.pool)
        .await
        .unwrap();

    world.alive().await;
    world.schedule(&["bad", "good", "new"]).await;

    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DOWN", false)]);
    assert_eq!(world.entry("good").await.state.status, Status::New);
    assert!(world.entry("new").await.state.deadline_at.is_some());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_same_schedule_reported_again_leaves_what_a_person_set(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a"]).await;
    let a = world.entry("a").await;
    let change = monitor::Change {
        grace_seconds: Some(900.0),
        ..monitor::Change::default()
    };
    monitor::update(&world.services, &world.access, a.id, &change)
        .await
        .unwrap();

    world.schedule(&["a"]).await;

    assert_eq!(world.entry("a").await.state.expectation.grace_seconds, 900.0);
    world.ping(&a, Success).await;
    assert_eq!(world.sweep_after(959).await.down, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_missed_run_says_how_far_it_got(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a"]).await;
    let stage = |kind: &str, rest: serde_json::Value| {
        let mut event =
            json!({"beat": "shop", "entry": "a", "run_id": Uuid::from_u128(7), "queue": "reports"});
        for (field, value) in rest.as_object().unwrap() {
            event[field] = value.clone();
        }
        world.an_event(kind, event)
    };
    for _ in 0..6 {
        world.alive().await;
        world.advance(10);
    }
    world.alive().await;
    assert_eq!(
        world.events(vec![stage("run_published", json!({}))]).await,
        [Verdict::Accepted]
    );
    world.sweep_after(5).await;

    let evidence = async || -> String {
        let evidence: serde_json::Value =
            sqlx::query_scalar("SELECT evidence FROM incident ORDER BY id DESC LIMIT 1")
                .fetch_one(&world.pool)
                .await
                .unwrap();
        evidence.to_string()
    };
    let first = evidence().await;
    assert!(first.contains("It was sent to queue reports."), "{first}");
    assert!(
        first.contains("No worker has reported that it received it"),
        "{first}"
    );

    // A later stage of the same run is added. A stage of an older run does not replace it.
    let taken = stage("run_received", json!({"worker": "celery@w1"}));
    world.events(vec![taken]).await;
    let a = world.entry("a").await;
    let newest = async || {
        let mut tx = world.store().begin().await.unwrap();
        let mut stages =
            deadbeat_store::celery::trace::stage::of_monitors(&mut tx, &[(a.project_id, a.id)], &[None])
                .await
                .unwrap();
        assert_eq!(stages.len(), 1);
        stages.remove(0)
    };
    let stage_now = newest().await;
    assert_eq!(
        (stage_now.queue.as_deref(), stage_now.worker.as_deref()),
        (Some("reports"), Some("celery@w1"))
    );
    assert!(stage_now.received_at > stage_now.published_at);
    let mut older = stage("run_published", json!({"run_id": Uuid::from_u128(6)}));
    older["at"] = json!(world.now() - chrono::TimeDelta::seconds(60));
    world.events(vec![older]).await;
    assert_eq!(newest().await.run_id, Uuid::from_u128(7));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_beat_did_not_send_has_no_monitor_to_miss_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["a"]).await;
    let of_nobody = json!({"beat": "shop", "entry": null, "run_id": Uuid::from_u128(7)});
    let events = ["run_published", "run_received", "run_started"]
        .map(|kind| world.an_event(kind, of_nobody.clone()))
        .to_vec();

    assert_eq!(world.events(events).await, vec![Verdict::Accepted; 3]);

    assert_eq!(
        world
            .count("SELECT count(*) FROM trace WHERE monitor_id IS NULL AND state = 'started'")
            .await,
        1
    );
    assert_eq!(world.count("SELECT count(*) FROM run").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_application_that_is_gone_is_deleted_with_its_monitors_and_one_all_clear_each(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let own = world.monitor("of a person").await;
    let beat = world.silent_beat(&["a", "b"]).await;
    let failed = world.entry("b").await.id.0;
    world.finished("b", "success").await;
    world.finished("b", "failure").await;
    let delete = || {
        deadbeat_services::celery::beat::delete(
            &world.services,
            &world.access,
            deadbeat_domain::ids::BeatId(beat),
        )
    };

    delete().await.unwrap();

    assert_eq!(
        world.incidents().await,
        [
            alerted(beat, "BEAT_DOWN", false),
            alerted(failed, "FAILED", false)
        ]
    );
    let opened = ("opened".to_owned(), channel);
    let resolved = ("resolved".to_owned(), channel);
    let mut alerted = world.deliveries().await;
    alerted.sort();
    assert_eq!(alerted, [opened.clone(), opened, resolved.clone(), resolved]);
    let left: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM monitor")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(left, [own.id.0]);
    assert!(matches!(
        delete().await,
        Err(deadbeat_services::ServiceError::NotFound("Beat"))
    ));
    // A deleted Beat that still runs registers again.
    world.schedule(&["a"]).await;
    world.alive().await;
    assert_ne!(world.beat_id().await, beat);
    assert_eq!(world.entry("a").await.state.status, Status::New);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn beat_learns_which_queues_workers_attend_to(pool: PgPool) {
    let world = World::new(pool).await;
    let attended = async || {
        let alive = world.an_event(
            "beat_alive",
            json!({"beat": "shop", "period_seconds": 10, "grace_seconds": 20}),
        );
        match world.events(vec![alive]).await.remove(0) {
            Verdict::Ticked { attended, .. } => attended,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(attended().await, [""; 0], "no worker has reported");

    world
        .worker_says("celery@old", json!({"queues": ["abandoned"]}))
        .await;
    world.worker_says("celery@old", json!({"state": "stopped"})).await;
    world.advance(3_600);
    world
        .worker_says("celery@w1", json!({"queues": ["low", "high"]}))
        .await;
    world
        .worker_says("celery@w2", json!({"queues": ["high", "mail"]}))
        .await;
    world
        .worker_says("celery@other", json!({"app": "other", "queues": ["celery"]}))
        .await;
    assert_eq!(attended().await, ["high", "low", "mail"]);

    // A worker that is overdue still counts for its queues, and a worker that left does not.
    world.worker_says("celery@w2", json!({"state": "stopped"})).await;
    world.sweep_after(31).await;
    assert_eq!(attended().await, ["high", "low"]);

    // All workers have left. The queues of the last ones stay attended, because their return shows there; those of an hour before do not.
    world
        .worker_says("celery@w1", json!({"queues": ["low", "high"]}))
        .await;
    world.worker_says("celery@w1", json!({"state": "stopped"})).await;
    assert_eq!(attended().await, ["high", "low", "mail"]);
}
