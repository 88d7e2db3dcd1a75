//! Newer time zone data move due times before the evaluator judges anybody by the older data.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::schedule::zone::data::Release;
use deadbeat_services::monitor::Change;
use deadbeat_services::schedule::zone_data::{Moved, ZoneData};
use deadbeat_store::monitor::Monitor;
use serde_json::json;
use sqlx::PgPool;

use crate::setup::World;

impl World {
    fn zone_data(&self, release: &str) -> ZoneData {
        let release = Release::parse(release).unwrap();
        ZoneData::of_release(self.store(), Arc::new(self.clock.clone()), release)
    }

    /// A monitor that is due daily at two in Havana and has reported. The older data lack Cuba's summer time, so its due time is an hour late.
    async fn havana(&self, name: &str) -> Monitor {
        self.clock.set(utc("2026-11-28T06:00:01Z"));
        let schedule = json!({"kind": "cron", "expression": "0 2 * * *", "timezone": "America/Havana"});
        let change = Change {
            schedule: Some(schedule),
            grace_seconds: Some(600.0),
            ..Change::default()
        };
        let monitor = self.monitor_with(name, change).await;
        self.ping(&monitor, Success).await;
        sqlx::query(
            "UPDATE monitor SET next_due_at = next_due_at + interval '1 hour', deadline_at = deadline_at + interval '1 hour',
                check_after = check_after + interval '1 hour' WHERE id = $1",
        )
        .bind(monitor.id.0)
        .execute(&self.pool)
        .await
        .unwrap();
        monitor
    }

    async fn release(&self) -> (String, Option<String>) {
        sqlx::query_as("SELECT release, moving_to FROM zone_data")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

async fn finish(zones: &ZoneData) -> usize {
    let mut moved = 0;
    loop {
        match zones.move_once().await.unwrap() {
            Moved::All => return moved,
            Moved::Some(more) => moved += more,
        }
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_due_of_older_data_is_moved_and_the_silence_is_found_at_the_right_hour(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.havana("backup").await;
    assert_eq!(
        world.read(monitor.id).await.state.next_due_at,
        Some(utc("2026-11-29T07:00:00Z"))
    );

    assert_eq!(finish(&world.zone_data("2099a")).await, 1);

    let state = world.read(monitor.id).await.state;
    assert_eq!(state.next_due_at, Some(utc("2026-11-29T06:00:00Z")));
    assert_eq!(state.deadline_at, Some(utc("2026-11-29T06:10:00Z")));
    assert_eq!(world.release().await, ("2099a".to_owned(), None));
    world.clock.set(utc("2026-11-29T06:09:59Z"));
    world.sweep().await;
    assert_eq!(world.status(&monitor).await, Status::Up);
    world.sweep_after(2).await;
    assert_eq!(world.status(&monitor).await, Status::Down);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_newest_data_win_whatever_the_order_of_the_processes(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.havana("backup").await;
    let (older, newer) = (world.zone_data("2099a"), world.zone_data("2099b"));

    // The older process has begun when the newer one starts. The older process is then killed, and starts again.
    assert_eq!(older.move_once().await.unwrap(), Moved::Some(1));
    assert_eq!(
        world.release().await,
        ("2026e".to_owned(), Some("2099a".to_owned()))
    );
    assert_eq!(newer.move_once().await.unwrap(), Moved::Some(0));
    assert_eq!(world.release().await.1.as_deref(), Some("2099b"));
    assert_eq!(
        older.move_once().await.unwrap(),
        Moved::All,
        "the newer process must finish"
    );
    assert_eq!(finish(&newer).await, 0);

    assert_eq!(world.release().await, ("2099b".to_owned(), None));
    assert_eq!(finish(&older).await, 0);
    assert_eq!(world.release().await, ("2099b".to_owned(), None));
    assert_eq!(
        world.read(monitor.id).await.state.next_due_at,
        Some(utc("2026-11-29T06:00:00Z"))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_poisonous_row_and_an_open_run_hinder_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let poisonous = world.havana("poisonous").await;
    let monitor = world.havana("backup").await;
    world
        .ping_of(&monitor, 7, deadbeat_domain::monitor::ping::PingKind::Start)
        .await;
    sqlx::query("UPDATE monitor SET schedule = '{\"kind\": \"moon\"}' WHERE id = $1")
        .bind(poisonous.id.0)
        .execute(&world.pool)
        .await
        .unwrap();

    assert_eq!(finish(&world.zone_data("2099a")).await, 1);

    let moved = world.read(monitor.id).await;
    assert_eq!(moved.state.next_due_at, Some(utc("2026-11-29T06:00:00Z")));
    assert_eq!(moved.open_runs, 1);
    let started_at = world.now();
    assert_eq!(
        moved.state.deadline_at,
        Some(started_at + TimeDelta::minutes(10)),
        "the run's"
    );
}
