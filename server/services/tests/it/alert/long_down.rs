//! An incident that lasts 14 days gets one more reminder, and only a person mutes its subject. Each row of the table in docs/alerting.md is
//! one test.

use chrono::TimeDelta;
use deadbeat_domain::ids::IncidentId;
use deadbeat_domain::incident::LONG_DOWN;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::alert::channel;
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::people::project;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::World;

const DAYS: i64 = 86_400;

impl World {
    /// Sets how often reminders about open incidents come. None: never.
    async fn remind_each(&self, seconds: Option<i32>) {
        project::update(&self.services, &self.access, None, Some(seconds))
            .await
            .unwrap();
    }

    /// The messages that say that an incident has lasted 14 days, oldest first.
    async fn long_downs(&self) -> Vec<Value> {
        sqlx::query_scalar(
            "SELECT payload FROM delivery WHERE payload ->> 'long_down' = 'true' ORDER BY sequence",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn only_incident(&self) -> IncidentId {
        let ids = sqlx::query_scalar("SELECT id FROM incident");
        IncidentId(ids.fetch_one(&self.pool).await.unwrap())
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn after_14_days_one_reminder_says_so_and_how_to_mute_or_delete(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(Some(86_400)).await;
    world.channel("ops").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    for _ in 0..13 {
        assert_eq!(world.sweep_after(DAYS).await.reminded, 1);
    }
    assert_eq!(world.sweep_after(DAYS - 1).await.reminded, 0);

    assert_eq!(
        world.sweep_after(1).await.reminded,
        1,
        "instead of that day's reminder"
    );
    for _ in 0..3 {
        assert_eq!(world.sweep_after(DAYS).await.reminded, 1, "the usual one");
    }

    let [alerted] = world.long_downs().await.try_into().unwrap();
    assert_eq!(alerted["type"], "incident.reminder");
    let steps: Vec<&str> = alerted["incident"]["repair"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["command"].as_str())
        .collect();
    let address = format!("https://deadbeat.test/api/v1/monitors/{}", monitor.id);
    for command in [
        format!(r#"curl -fsS -X POST -H "Authorization: Bearer $API_KEY" {address}/mute"#),
        format!(r#"curl -fsS -X DELETE -H "Authorization: Bearer $API_KEY" {address}"#),
    ] {
        assert!(steps.contains(&command.as_str()), "{steps:?}");
    }
    assert_eq!(world.alerts().await.len(), 1 + 13 + 1 + 3);
    // Deadbeat has muted nothing.
    assert_eq!(world.count("SELECT count(*) FROM snooze").await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn it_also_comes_where_reminders_are_off(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    world.channel("ops").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;

    world.sweep_after(14 * DAYS).await;
    world.sweep_after(30 * DAYS).await;

    assert_eq!(world.alerts().await, ["opened", "reminder"]);
    assert_eq!(world.long_downs().await.len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn it_also_comes_where_somebody_acknowledged(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    let incident = world.only_incident().await;
    acknowledgement::acknowledge(&world.services, &world.access, incident)
        .await
        .unwrap();

    world.sweep_after(14 * DAYS).await;

    assert_eq!(world.alerts().await, ["opened", "acknowledged", "reminder"]);
    let [alerted] = world.long_downs().await.try_into().unwrap();
    assert_eq!(alerted["incident"]["acknowledged_by"], "the operator");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_that_ends_before_gets_none_and_a_new_one_counts_from_its_beginning(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    world.channel("ops").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    world.advance(14 * DAYS - 1);
    world.ping(&monitor, Success).await;
    world.ping(&monitor, Fail).await;

    world.sweep_after(DAYS).await;
    assert_eq!(world.long_downs().await, [Value::Null; 0]);
    world.sweep_after(13 * DAYS).await;

    assert_eq!(world.long_downs().await.len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mute_of_a_person_keeps_it_back(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    world.channel("ops").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    deadbeat_services::alert::hold::mute(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    world.sweep_after(14 * DAYS).await;

    let rows: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT status, cancel_reason FROM delivery WHERE alert = 'reminder'")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(rows, [("cancelled".to_owned(), Some("muted".to_owned()))]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_asks_for_no_reminders_does_not_get_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    let (pager, ops) = (world.channel("pager").await, world.channel("ops").await);
    let rules = json!({"events": ["opened", "resolved"]});
    let rules = rules.as_object().unwrap();
    channel::update_with(&world.services, &world.access, pager, None, None, rules)
        .await
        .unwrap();
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;

    world.sweep_after(14 * DAYS).await;

    let alerted: Vec<Uuid> = sqlx::query_scalar("SELECT channel_id FROM delivery WHERE alert = 'reminder'")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(alerted, [ops.0]);
}

/// A waiting reminder does not say it, so both come.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn it_comes_beside_a_reminder_that_waits(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(Some(86_400)).await;
    let ops = world.channel("ops").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    let now = world.now();
    for _ in 0..13 {
        world.sweep_after(DAYS).await;
    }
    let quiet = json!({"quiet_hours": {"timezone": "UTC", "times": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "23:00"}]}});
    let rules = quiet.as_object().unwrap();
    channel::update_with(&world.services, &world.access, ops, None, None, rules)
        .await
        .unwrap();
    sqlx::query("UPDATE incident SET remind_at = $1")
        .bind(now + LONG_DOWN - TimeDelta::hours(1))
        .execute(&world.pool)
        .await
        .unwrap();

    world.sweep_after(DAYS - 3_600).await;
    world.sweep_after(3_600).await;

    let waiting = "SELECT count(*) FROM delivery WHERE alert = 'reminder' AND not_before IS NOT NULL";
    assert_eq!(world.count(waiting).await, 2);
    assert_eq!(world.long_downs().await.len(), 1);
}

/// Two processes, and one that is killed before its commit.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn several_processes_write_it_once_and_a_killed_one_loses_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    world.channel("ops").await;
    for number in 0..50 {
        let monitor = world.monitor(&format!("m{number}")).await;
        world.ping(&monitor, Fail).await;
    }
    world.advance(14 * DAYS);
    let now = world.now();
    let mut killed = world.store().begin().await.unwrap();
    let claimed = deadbeat_store::incident::claim_long_down(&mut killed, now - LONG_DOWN, now, 20).await;
    assert_eq!(claimed.unwrap().len(), 20);

    let other = world.another_evaluator();
    let (here, there) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());
    assert_eq!(
        here.unwrap().reminded + there.unwrap().reminded,
        30,
        "what is locked waits"
    );
    drop(killed);
    while world.long_downs().await.len() < 50 {
        world.sweep_after(1).await;
    }
    world.sweep_after(DAYS).await;

    assert_eq!(world.long_downs().await.len(), 50);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_unreadable_incident_holds_up_no_other(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    world.channel("ops").await;
    let (odd, good) = (world.monitor("odd").await, world.monitor("good").await);
    world.ping(&odd, Fail).await;
    world.ping(&good, Fail).await;
    sqlx::query("UPDATE incident SET cause = 'OF_A_LATER_VERSION' WHERE subject_id = $1")
        .bind(odd.id.0)
        .execute(&world.pool)
        .await
        .unwrap();

    world.sweep_after(14 * DAYS).await;
    world.sweep_after(60).await;

    let [alerted] = world.long_downs().await.try_into().unwrap();
    assert_eq!(alerted["incident"]["subject"]["name"], "good");
}

/// A Beat is one incident, whatever it schedules; its step deletes the Beat.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_is_down_for_14_days_gets_the_step_that_deletes_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.remind_each(None).await;
    world.channel("ops").await;
    world.schedule(&["report", "backup"]).await;
    world.alive().await;
    for _ in 0..6 {
        world.sweep_after(60).await;
    }
    assert_eq!(world.alerts().await, ["opened"]);

    world.sweep_after(14 * DAYS).await;

    let [alerted] = world.long_downs().await.try_into().unwrap();
    assert_eq!(alerted["incident"]["subject"]["kind"], "beat");
    assert_eq!(alerted["incident"]["member_count"], 2);
    let repair = alerted["incident"]["repair"].to_string();
    assert!(repair.contains("/api/v1/beats/"), "{repair}");
}
