//! Several processes report as one Beat: a deployment, a second process by mistake, or two applications of one name.

use deadbeat_services::celery::event::Verdict;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, alerted, entry};

/// An entry whose next run is in a day.
fn daily(name: &str) -> Value {
    let mut entry = entry(name);
    entry["schedule"] = json!({"kind": "interval", "seconds": 86_400});
    entry
}

/// A process that reports as a Beat.
#[derive(Clone, Copy)]
pub struct Process(pub u128);

impl Process {
    pub fn identify(self, mut event: Value) -> Value {
        let members = event.as_object_mut().unwrap();
        members.insert("boot".to_owned(), json!(Uuid::from_u128(self.0)));
        members.insert("host".to_owned(), json!(format!("host-{}", self.0)));
        members.insert("pid".to_owned(), json!(4_000 + self.0 as i64));
        event
    }

    fn heartbeat(self, world: &World) -> Value {
        let alive = json!({"beat": "shop", "period_seconds": 10.0, "grace_seconds": 20.0});
        world.an_event("beat_alive", self.identify(alive))
    }

    pub async fn is_reporting(self, world: &World) {
        world.event(self.heartbeat(world)).await;
    }

    async fn lists(self, world: &World, entries: &[&str]) {
        let entries: Vec<Value> = entries.iter().map(|name| daily(name)).collect();
        let list = self.identify(json!({"beat": "shop", "entries": entries}));
        world.event(world.an_event("beat_schedule", list)).await;
    }
}

impl World {
    /// For some seconds, each of these processes reports and the evaluator sweeps, every ten seconds.
    async fn speak(&self, processes: &[Process], seconds: i64) {
        for _ in 0..seconds / 10 {
            for process in processes {
                process.is_reporting(self).await;
            }
            self.sweep_after(10).await;
        }
    }
}

const FIRST: Process = Process(1);
const SECOND: Process = Process(2);
const THIRD: Process = Process(3);

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_beats_of_one_schedule_are_one_incident_that_ends_with_one_of_them(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    FIRST.lists(&world, &["a", "b"]).await;
    world.speak(&[FIRST], 60).await;
    SECOND.lists(&world, &["b", "a"]).await;

    world.speak(&[FIRST, SECOND], 120).await;
    assert_eq!(world.incidents().await, [], "a deployment may take as long");
    world.speak(&[FIRST, SECOND], 300).await;

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DUPLICATE", true)]);
    let (summary, evidence, repair): (String, Value, Value) =
        sqlx::query_as("SELECT summary, evidence, repair FROM incident")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(summary.contains("on host-1 and host-2"), "{summary}");
    for process in ["process 4001 on host-1", "process 4002 on host-2"] {
        assert!(evidence.to_string().contains(process), "{evidence}");
    }
    for command in ["kill -TERM 4001", "kill -TERM 4002"] {
        assert!(repair.to_string().contains(command), "{repair}");
    }

    world.speak(&[FIRST], 20).await;
    assert_eq!(
        world.incidents().await,
        [alerted(beat, "BEAT_DUPLICATE", true)],
        "the second process may report late"
    );
    world.speak(&[FIRST], 60).await;

    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DUPLICATE", false)]);
    assert_eq!(
        world.deliveries().await,
        [("opened".to_owned(), channel), ("resolved".to_owned(), channel)]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn deployments_of_beat_are_silent_however_the_processes_overlap(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=6 {
        let (old, new) = (Process(boot), Process(boot + 1));
        old.lists(&world, &["a", "b"]).await;
        world.speak(&[old], 60).await;
        new.lists(&world, &["a", "b"]).await;
        world.speak(&[old, new], 20 * boot as i64 % 120).await;
        world.speak(&[new], 60).await;
    }
    // Ten times, a process stops for a moment and comes back with another boot id within its grace.
    for boot in 20..30 {
        Process(boot).is_reporting(&world).await;
        world.sweep_after(15).await;
    }
    assert_eq!(world.incidents_of_beat().await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn reports_of_a_beat_that_is_over_may_come_late_and_in_any_order(pool: PgPool) {
    let world = World::new(pool).await;
    FIRST.lists(&world, &["a"]).await;
    FIRST.is_reporting(&world).await;
    let mut late = Vec::new();
    for _ in 0..30 {
        world.advance(10);
        late.push(FIRST.heartbeat(&world));
    }
    late.reverse();
    SECOND.lists(&world, &["a"]).await;
    for held in late.chunks(2) {
        // The delayed reports arrive in pairs, after the second process has reported for minutes.
        world.events(held.to_vec()).await;
        world.speak(&[SECOND], 20).await;
    }
    assert_eq!(world.incidents_of_beat().await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn three_beats_that_fall_silent_one_by_one_are_one_incident(pool: PgPool) {
    let world = World::new(pool).await;
    for process in [FIRST, SECOND, THIRD] {
        process.lists(&world, &["a"]).await;
    }
    world.speak(&[FIRST, SECOND, THIRD], 200).await;
    world.speak(&[SECOND, THIRD], 100).await;
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DUPLICATE", true)]);
    world.speak(&[THIRD], 100).await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DUPLICATE", false)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn both_beats_fall_silent_and_that_is_reported_as_such(pool: PgPool) {
    let world = World::new(pool).await;
    FIRST.lists(&world, &["a"]).await;
    SECOND.lists(&world, &["a"]).await;
    world.speak(&[FIRST, SECOND], 200).await;
    for _ in 0..10 {
        world.sweep_after(10).await;
    }
    let beat = world.beat_id().await;
    assert_eq!(
        world.incidents().await,
        [
            alerted(beat, "BEAT_DUPLICATE", false),
            alerted(beat, "BEAT_DOWN", true)
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn invented_boots_and_a_list_that_cannot_be_read_stop_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 0..100 {
        Process(boot).is_reporting(&world).await;
    }
    let kept = "SELECT jsonb_array_length(incarnations)::bigint FROM beat";
    assert_eq!(world.count(kept).await, 16);
    sqlx::query("UPDATE beat SET incarnations = '{\"poison\": 1}'")
        .execute(&world.pool)
        .await
        .unwrap();
    FIRST.is_reporting(&world).await;
    assert_eq!(world.count(kept).await, 1);
    let mut unreadable = FIRST.heartbeat(&world);
    unreadable["boot"] = json!("not an id");
    let verdicts = world.events(vec![unreadable]).await;
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
async fn an_outage_of_ours_neither_ends_nor_begins_it(pool: PgPool) {
    let world = World::new(pool).await;
    FIRST.lists(&world, &["a"]).await;
    SECOND.lists(&world, &["a"]).await;
    world.speak(&[FIRST, SECOND], 200).await;
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DUPLICATE", true)]);

    world.was_blind(600).await;
    world.speak(&[SECOND, FIRST], 60).await;

    assert_eq!(world.incidents().await, [alerted(beat, "BEAT_DUPLICATE", true)]);
    assert_eq!(world.count("SELECT count(*) FROM incident").await, 1);
}

impl World {
    async fn incidents_of_beat(&self) -> i64 {
        self.count("SELECT count(*) FROM incident WHERE subject_kind = 'beat'")
            .await
    }

    /// For some seconds, no process of the server listened.
    async fn was_blind(&self, seconds: i64) {
        let from = self.now();
        self.advance(seconds);
        sqlx::query("INSERT INTO blind_spell (id, started_at, ended_at) VALUES (gen_random_uuid(), $1, $2)")
            .bind(from)
            .bind(self.now())
            .execute(&self.pool)
            .await
            .unwrap();
    }
}
