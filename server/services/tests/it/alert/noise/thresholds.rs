//! After how many bad runs an incident opens, and after how many good ones it ends.

use deadbeat_domain::monitor::ping::PingKind::{Fail, Start, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::monitor::{self, Change};
use deadbeat_store::monitor::Monitor;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::World;

impl World {
    /// A monitor of a minute with half a minute of grace.
    async fn patient(&self, failures: i64, recoveries: i64) -> Monitor {
        let change = Change {
            failure_threshold: Some(failures),
            recovery_threshold: Some(recoveries),
            ..Change::default()
        };
        self.monitor_with("patient", change).await
    }

    /// A ping each minute.
    async fn ping_next(&self, monitor: &Monitor, kind: deadbeat_domain::monitor::ping::PingKind) {
        self.advance(60);
        self.ping(monitor, kind).await;
    }

    /// What the history says of a monitor, oldest first.
    async fn history(&self, monitor: &Monitor) -> Vec<(String, String)> {
        sqlx::query_as("SELECT to_status, cause FROM transition WHERE subject_id = $1 ORDER BY id")
            .bind(monitor.id.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_third_failure_in_a_row_is_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(3, 1).await;
    world.ping(&monitor, Success).await;

    for _ in 0..2 {
        world.ping_next(&monitor, Fail).await;
        assert_eq!(world.status(&monitor).await, Status::Down, "the status is true");
        assert!(world.alerts_sent().await.is_empty());
    }
    world.ping_next(&monitor, Fail).await;

    assert_eq!(world.alerts_sent().await, ["opened"]);
    let incident = world.newest_incident().await;
    assert_eq!(incident.opened_at, world.now());
    let first = incident
        .evidence
        .iter()
        .find(|fact| fact.fact.contains("The first of 3 bad runs in a row"))
        .unwrap();
    assert_eq!(first.at, Some(world.now() - chrono::TimeDelta::minutes(2)));
    world.ping_next(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
    let history = [("up", "REPORT"), ("down", "FAILED"), ("up", "REPORT")];
    assert_eq!(
        world.history(&monitor).await,
        history.map(|(to, cause)| (to.to_owned(), cause.to_owned()))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn missed_slots_failures_and_hanging_runs_count_together(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(4, 1).await;
    world.ping(&monitor, Success).await;

    assert!(world.received_after_seconds(90).await.is_empty(), "missed at 60");
    world.advance(30);
    world.ping(&monitor, Fail).await;
    assert!(world.alerts_sent().await.is_empty(), "failed at 120");
    world.advance(60);
    world.ping_of(&monitor, 1, Start).await;
    assert!(world.received_after_seconds(30).await.is_empty(), "hangs at 210");
    assert_eq!(world.read(monitor.id).await.state.alarm.bad_runs(), Some(3));

    assert_eq!(
        world.received_after_seconds(90).await,
        ["opened"],
        "missed at 270"
    );
    assert_eq!(world.incidents().await.len(), 1);
    assert!(
        world.received_after_seconds(900).await.is_empty(),
        "it is told once"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_success_in_between_begins_the_count_anew(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(3, 1).await;
    world.ping(&monitor, Success).await;

    for kind in [Fail, Fail, Success, Fail, Fail] {
        world.ping_next(&monitor, kind).await;
    }

    assert!(world.incidents().await.is_empty());
    assert!(world.alerts_sent().await.is_empty());
    world.ping_next(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_ends_with_the_third_success_and_stays_the_same_until_then(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(1, 3).await;
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);

    for kind in [Success, Success] {
        world.ping_next(&monitor, kind).await;
    }
    assert_eq!(world.status(&monitor).await, Status::Up, "the status is true");
    assert!(world.alerts_sent().await.is_empty());
    for kind in [Fail, Success, Success] {
        world.ping_next(&monitor, kind).await;
    }
    assert!(world.alerts_sent().await.is_empty());
    world.ping_next(&monitor, Success).await;

    assert_eq!(world.alerts_sent().await, ["resolved"]);
    assert_eq!(world.incidents().await.len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slot_that_is_missed_while_good_runs_are_counted_belongs_to_the_open_incident(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(2, 2).await;
    world.ping(&monitor, Fail).await;
    world.ping_next(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);
    world.ping_next(&monitor, Success).await;

    assert!(world.received_after_seconds(90).await.is_empty());

    assert_eq!(world.status(&monitor).await, Status::Down);
    assert_eq!(world.incidents().await.len(), 1);
    world.ping_next(&monitor, Success).await;
    assert!(world.alerts_sent().await.is_empty());
    world.ping_next(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_pause_ends_an_incident_that_waits_for_good_runs(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(1, 5).await;
    world.ping(&monitor, Fail).await;
    world.ping_next(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);

    monitor::pause(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_deletion_of_a_monitor_ends_an_incident_that_waits_for_good_runs(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(1, 5).await;
    world.ping(&monitor, Fail).await;
    world.ping_next(&monitor, Success).await;

    monitor::delete(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.alerts_sent().await, ["opened", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_delay_of_a_channel_counts_from_the_run_that_opens_the_incident(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("pager", json!({"delay_seconds": 300})).await;
    let monitor = world.patient(2, 1).await;
    world.ping(&monitor, Success).await;
    world.ping_next(&monitor, Fail).await;
    world.ping_next(&monitor, Fail).await;

    assert!(world.alerts_sent_after(4).await.is_empty());

    assert_eq!(world.alerts_sent_after(1).await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn slots_that_a_silent_beat_explains_join_its_incident_and_do_not_count(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    world.schedule(&["report"]).await;
    world.alive().await;
    let monitor = world.entry("report").await;
    let change = Change {
        failure_threshold: Some(2),
        ..Change::default()
    };
    monitor::update(&world.services, &world.access, monitor.id, &change)
        .await
        .unwrap();
    world.finished("report", "failure").await;
    assert_eq!(world.read(monitor.id).await.state.alarm.bad_runs(), Some(1));

    world.advance(70);
    world.sweep().await;
    world.sweep_after(3).await;

    assert_eq!(world.alerts_sent().await, ["opened"], "Beat's incident alone");
    let members = world.count("SELECT count(*) FROM incident_member").await;
    assert_eq!(members, 1);
    world.alive().await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
    assert_eq!(world.status(&monitor).await, Status::New);
    assert_eq!(world.read(monitor.id).await.state.alarm.bad_runs(), None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_member_that_failed_on_its_own_is_not_restored_with_the_other_subject(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    world.silent_beat(&["report"]).await;
    world.sweep_after(3).await;
    let monitor = world.entry("report").await;
    assert_eq!(monitor.state.status, Status::Down);
    let change = Change {
        failure_threshold: Some(3),
        ..Change::default()
    };
    monitor::update(&world.services, &world.access, monitor.id, &change)
        .await
        .unwrap();
    world.finished("report", "failure").await;

    world.alive().await;

    let after = world.read(monitor.id).await.state;
    assert_eq!((after.status, after.alarm.bad_runs()), (Status::Down, Some(1)));
    assert!(after.deadline_at.is_some(), "it is judged on");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_evaluators_count_each_missed_slot_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(5, 1).await;
    world.ping(&monitor, Success).await;
    let other = world.another_evaluator();

    for slot in 1..=4_u16 {
        world.advance(if slot == 1 { 90 } else { 60 });
        let (here, there) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());
        here.unwrap();
        there.unwrap();
        assert_eq!(world.read(monitor.id).await.state.alarm.bad_runs(), Some(slot));
    }
    world.advance(60);
    let (here, there) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());
    assert_eq!(here.unwrap().down + there.unwrap().down, 1);

    assert_eq!(world.alerts_sent().await, ["opened"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sweep_that_dies_before_its_commit_has_counted_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(2, 1).await;
    world.ping(&monitor, Success).await;
    world.sweep_after(90).await;
    for statement in [
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''died''; END'",
        "CREATE TRIGGER die BEFORE INSERT ON delivery FOR EACH ROW EXECUTE FUNCTION die()",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    world.advance(60);
    assert!(world.evaluator.sweep_once().await.is_err());
    assert_eq!(world.read(monitor.id).await.state.alarm.bad_runs(), Some(1));
    sqlx::query("DROP TRIGGER die ON delivery")
        .execute(&world.pool)
        .await
        .unwrap();

    world.sweep().await;

    assert_eq!(world.alerts_sent().await, ["opened"]);
    assert_eq!(world.incidents().await.len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_that_another_version_wrote_strangely_is_still_judged(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.patient(3, 1).await;
    world.ping(&monitor, Success).await;
    sqlx::query("ALTER TABLE monitor DROP CONSTRAINT monitor_alarm, DROP CONSTRAINT monitor_streak")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE monitor SET alarm = 'a later word', streak = -7")
        .execute(&world.pool)
        .await
        .unwrap();

    world.sweep_after(90).await;

    assert_eq!(world.read(monitor.id).await.state.alarm.bad_runs(), Some(1));
    let stored: (Value,) = sqlx::query_as("SELECT to_jsonb(alarm) FROM monitor")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(stored.0, json!("bad"));
}
