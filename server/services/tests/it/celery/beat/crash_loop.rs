//! A Beat crashes again and again: one incident once an entry is missed, and no incident about deployments.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::monitor::status::Status;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted, entry};

/// How a process of Beat ends.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    /// Beat ends without a report.
    Killed,
    /// Beat ends by an error, and reports it.
    Fails,
    /// Beat ends in order, and reports it.
    Stops,
    /// Beat does not end.
    Never,
}

/// Makes an event of the process with this boot number.
fn named(mut event: Value, boot: u128, started_at: DateTime<Utc>) -> Value {
    event["beat"] = json!("shop");
    event["boot"] = json!(Uuid::from_u128(boot));
    event["host"] = json!("beat-1");
    event["pid"] = json!(4_000 + boot as i64);
    event["started_at"] = json!(started_at);
    event
}

impl World {
    /// A heartbeat of that process of Beat, or the report of its end.
    async fn says(&self, boot: u128, state: &str, started_at: DateTime<Utc>) {
        let error = (state == "failed").then_some("MemoryError");
        let said =
            json!({"period_seconds": 10.0, "grace_seconds": 20.0, "state": state, "exit_error": error});
        self.event(self.an_event("beat_alive", named(said, boot, started_at)))
            .await;
    }

    /// A process of Beat lists these entries, each due an interval from now, lives for some seconds, and ends.
    async fn beat_lives(&self, boot: u128, entries: &[&str], seconds: i64, ends: Ends) {
        let started_at = self.now();
        let next_due_at = started_at + TimeDelta::seconds(60);
        let listed: Vec<Value> = entries
            .iter()
            .map(|name| {
                let mut entry = entry(name);
                entry["next_due_at"] = json!(next_due_at);
                entry
            })
            .collect();
        let schedule = named(json!({"entries": listed, "state": "running"}), boot, started_at);
        self.event(self.an_event("beat_schedule", schedule)).await;
        for second in 0..=seconds {
            if second > 0 {
                self.sweep_after(1).await;
            }
            if second % 10 == 0 {
                self.says(boot, "running", started_at).await;
            }
        }
        match ends {
            Ends::Killed | Ends::Never => {}
            Ends::Fails => self.says(boot, "failed", started_at).await,
            Ends::Stops => self.says(boot, "stopped", started_at).await,
        }
    }

    /// For some seconds, no process of Beat reports.
    async fn pause(&self, seconds: i64) {
        for _ in 0..seconds {
            self.sweep_after(1).await;
        }
    }

    async fn story(&self) -> (String, Value, Value) {
        sqlx::query_as("SELECT summary, evidence, repair FROM incident ORDER BY id DESC LIMIT 1")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn entries_that_a_crash_loop_never_sends_are_one_incident_of_beat(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    // There are more processes than Deadbeat remembers.
    for boot in 1..=20 {
        let ends = if boot == 4 { Ends::Fails } else { Ends::Killed };
        world.beat_lives(boot, &["a", "b", "c"], 20, ends).await;
        world.finished("c", "success").await;
        world.pause(5).await;
    }

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", true)]);
    assert_eq!(world.members().await, 2, "c is sent in time");
    let (summary, evidence, repair) = world.story().await;
    for words in [
        "4 of its processes ended since 20",
        "by MemoryError",
        "misses runs that are due",
    ] {
        assert!(summary.contains(words), "{words}: {summary}");
    }
    for fact in [
        "process 4001 on beat-1",
        "process 4004 on beat-1",
        "and did not report that it ends",
        "reported that it ends because of MemoryError",
        "a was due, and has not been sent since",
    ] {
        assert!(evidence.to_string().contains(fact), "{fact}: {evidence}");
    }
    assert!(
        repair.to_string().contains("journalctl -u celery-beat"),
        "{repair}"
    );

    let mended_at = world.now();
    world.finished("c", "success").await;
    world.beat_lives(30, &["a", "b", "c"], 62, Ends::Never).await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", false)]);
    let resolved_at: DateTime<Utc> = sqlx::query_scalar("SELECT resolved_at FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(resolved_at - mended_at, TimeDelta::seconds(60));
    assert_eq!(
        world.deliveries().await,
        [("opened".to_owned(), channel), ("resolved".to_owned(), channel)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn deployments_that_put_entries_off_are_reported_for_the_entries(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=8 {
        world.beat_lives(boot, &["a"], 20, Ends::Stops).await;
        world.pause(5).await;
    }
    let a = world.entry("a").await.id.0;
    assert_eq!(world.incidents().await, [alerted(a, "SCHEDULE_RESET", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_crash_loop_in_which_every_entry_is_sent_in_time_is_not_reported(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=10 {
        world.beat_lives(boot, &["a"], 20, Ends::Killed).await;
        world.finished("a", "success").await;
        world.pause(5).await;
    }
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_pauses_of_a_crash_loop_are_one_incident_once_it_is_known(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=4 {
        world.beat_lives(boot, &["a"], 10, Ends::Killed).await;
        world.finished("a", "success").await;
        world.pause(if boot == 4 { 60 } else { 15 }).await;
    }
    let beat = world.beat_id().await;
    let expected = [alerted(beat, "BEAT_CRASH_LOOP", true)];
    assert_eq!(world.incidents().await, expected);
    for boot in 5..=8 {
        world.beat_lives(boot, &["a"], 10, Ends::Killed).await;
        world.finished("a", "success").await;
        assert_eq!(world.incidents().await, expected, "start {boot}");
        world.pause(90).await;
    }
    assert_eq!(world.incidents().await, expected);
    assert_eq!(world.count("SELECT count(*) FROM incident").await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_is_silent_and_not_started_again_is_down_however_often_it_crashed_before(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=3 {
        world.beat_lives(boot, &["a"], 10, Ends::Killed).await;
        world.finished("a", "success").await;
        world.pause(40).await;
        let last = world.incidents().await.pop();
        assert_eq!(last, Some(alerted(world.beat_id().await, "BEAT_DOWN", true)));
    }
    // Each of the first two incidents ended with the next start. By then, Deadbeat knows that the third crash is part of a loop.
    world.beat_lives(4, &["a"], 10, Ends::Killed).await;
    world.pause(40).await;
    world.beat_lives(5, &["a"], 59, Ends::Never).await;
    let beat = world.beat_id().await;
    let down = |open| alerted(beat, "BEAT_DOWN", open);
    assert_eq!(world.incidents().await, [down(false), down(false), down(true)]);
    world.pause(1).await;
    world
        .says(5, "running", world.now() - TimeDelta::seconds(60))
        .await;
    assert_eq!(world.incidents().await, [down(false), down(false), down(false)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_restart_by_hand_does_not_end_a_loop_that_is_reported(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=8 {
        let ends = if boot == 7 { Ends::Stops } else { Ends::Killed };
        world.beat_lives(boot, &["a"], 20, ends).await;
        world.pause(5).await;
    }
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", true)]);
    assert_eq!(world.count("SELECT count(*) FROM incident").await, 1);
    // A deployment repairs the crash.
    world.beat_lives(9, &["a"], 20, Ends::Stops).await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", true)]);
    world.beat_lives(10, &["a"], 62, Ends::Never).await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", false)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_loop_that_is_reported_when_beat_lives_for_long_enough_ends_with_its_next_report(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    for (boot, pause) in [(1, 2), (2, 3), (3, 3)] {
        world.beat_lives(boot, &["a"], 20, Ends::Killed).await;
        world.pause(pause).await;
    }
    // The incident opens 57 s after this start. The entry was due a minute after the first start, and was put off by a minute and its grace.
    world.beat_lives(4, &["a"], 59, Ends::Never).await;
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", true)]);
    world.pause(1).await;
    world
        .says(4, "running", world.now() - TimeDelta::seconds(60))
        .await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", false)]);
    assert_eq!(world.status(&world.entry("a").await).await, Status::New);
    assert_eq!(
        world.deliveries().await,
        [("opened".to_owned(), channel), ("resolved".to_owned(), channel)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn crashes_while_nothing_is_due_are_not_reported(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=4 {
        world.beat_lives(boot, &["a"], 10, Ends::Killed).await;
        world.pause(2).await;
    }
    world.beat_lives(5, &["a"], 60, Ends::Never).await;
    world.finished("a", "success").await;
    world.pause(10).await;
    assert_eq!(world.incidents().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_fails_at_each_start_is_reported_when_its_silence_is(pool: PgPool) {
    let world = World::new(pool).await;
    world.beat_lives(1, &["a", "b"], 20, Ends::Killed).await;
    for boot in 2..=20 {
        world.says(boot, "failed", world.now()).await;
        world.pause(3).await;
    }
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", true)]);
    assert_eq!(world.story().await.0.matches("MemoryError").count(), 1);
    world.pause(120).await;
    assert_eq!(world.members().await, 2);

    world.beat_lives(30, &["a", "b"], 62, Ends::Never).await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_CRASH_LOOP", false)]);
    assert_eq!(world.count("SELECT count(*) FROM incident").await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_start_that_fails_before_anything_was_received_is_no_heartbeat(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=5 {
        world.says(boot, "failed", world.now()).await;
        world.pause(60).await;
    }
    assert_eq!(world.incidents().await, []);
    let (status, seen): (String, Option<DateTime<Utc>>) =
        sqlx::query_as("SELECT status, last_seen_at FROM beat")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!((status.as_str(), seen), ("new", None));
}
