//! Beat's hint says when an entry is next due. A hint arms an entry that only Beat can compute, and excuses no slot that Beat has sent.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::celery::event::Verdict;
use deadbeat_services::monitor;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::{World, alerted};

type Instant = Option<DateTime<Utc>>;

/// An entry that only Beat can compute, with 5 s of grace.
fn by_rule(name: &str, next_due_at: Instant) -> Value {
    let schedule = json!({"kind": "hint", "class": "rrule", "text": "FREQ=DAILY"});
    json!({"name": name, "task": "tasks.run", "schedule": schedule, "grace_seconds": 5.0, "next_due_at": next_due_at})
}

/// An entry that is due every hour, on the hour, with 5 s of grace.
fn hourly(name: &str) -> Value {
    json!({"name": name, "schedule": {"kind": "celery", "minute": "0"}, "grace_seconds": 5.0})
}

impl World {
    /// Returns the time that many seconds after the start of the test.
    fn second(&self, seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_768_478_400 + seconds, 0).unwrap()
    }

    fn moved_to(&self, seconds: f64) {
        let start = self.second(0);
        self.clock
            .set(start + TimeDelta::milliseconds((seconds * 1000.0) as i64));
    }

    async fn register(&self, entries: &[Value]) {
        self.event(self.an_event("beat_schedule", json!({"beat": "shop", "entries": entries})))
            .await;
    }

    /// Beat reports that it has sent this entry, and when the entry is next due.
    async fn sent(&self, entry: &str, next_due_at: Instant) {
        self.event(self.beat_due("shop", entry, next_due_at)).await;
    }

    fn beat_due(&self, beat: &str, entry: &str, next_due_at: Instant) -> Value {
        let entries = json!([{"name": entry, "next_due_at": next_due_at}]);
        self.an_event("beat_due", json!({"beat": beat, "entries": entries}))
    }

    /// Sends an event that takes so many milliseconds to arrive.
    async fn slowly(&self, milliseconds: i64, event: Value) {
        let sent_at = self.now() - TimeDelta::milliseconds(milliseconds);
        let verdicts = self.batch(json!({"sent_at": sent_at, "events": [event]})).await;
        assert_eq!(verdicts.unwrap(), [Verdict::Accepted]);
    }

    async fn due_and_deadline(&self, entry: &str) -> (Instant, Instant) {
        let state = self.entry(entry).await.state;
        (state.next_due_at, state.deadline_at)
    }

    /// Sweeps each second for a while. Returns how many monitors went down.
    async fn down_within(&self, seconds: i64) -> usize {
        let mut down = 0;
        for _ in 0..seconds {
            down += self.sweep_after(1).await.down;
        }
        down
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_only_beat_can_compute_is_armed_by_its_hint_and_not_before(pool: PgPool) {
    let world = World::new(pool).await;
    world
        .register(&[by_rule("told", Some(world.second(60))), by_rule("untold", None)])
        .await;

    assert_eq!(
        world.due_and_deadline("told").await,
        (Some(world.second(60)), Some(world.second(65)))
    );
    assert_eq!(world.due_and_deadline("untold").await, (None, None));
    world.moved_to(61.0);
    world.finished("told", "success").await;
    assert_eq!(
        world.down_within(3_600).await,
        0,
        "one slot is satisfied, and the other entry has no hint"
    );
    world.sent("untold", Some(world.second(4_000))).await;
    assert_eq!(
        world.due_and_deadline("untold").await,
        (Some(world.second(4_000)), Some(world.second(4_005)))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_does_not_come_after_a_hint_is_one_incident_and_one_alert(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    world.register(&[by_rule("a", None)]).await;
    world.sent("a", Some(world.second(60))).await;

    world.moved_to(64.0);
    world.alive().await;
    assert_eq!(world.sweep().await.down, 0, "within its grace");
    assert_eq!(world.sweep_after(1).await.down, 1);
    // Beat goes on. Its hints about later slots neither resolve the incident nor open another.
    world.sent("a", Some(world.second(120))).await;
    for _ in 0..30 {
        world.alive().await;
        assert_eq!(world.sweep_after(5).await.down, 0);
    }

    let a = world.entry("a").await;
    assert_eq!(world.incidents().await, [alerted(a.id.0, "UNKNOWN", true)]);
    assert_eq!(world.deliveries().await, [("opened".to_owned(), channel)]);
    world.finished("a", "success").await;
    assert_eq!(world.incidents().await, [alerted(a.id.0, "UNKNOWN", false)]);
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
    assert_eq!(
        world.due_and_deadline("a").await,
        (None, None),
        "the hint of 120 has passed with the incident"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_satisfies_its_slot_and_the_hint_that_came_meanwhile_holds(pool: PgPool) {
    let world = World::new(pool).await;
    world.register(&[by_rule("a", Some(world.second(60)))]).await;

    for slot in [60_i64, 120, 180] {
        // Beat sends the entry and its next hint. The run ends three seconds later.
        world.moved_to(slot as f64 + 0.2);
        world.sent("a", Some(world.second(slot + 60))).await;
        assert_eq!(
            world.due_and_deadline("a").await,
            (Some(world.second(slot)), Some(world.second(slot + 5))),
            "still owed"
        );
        world.moved_to(slot as f64 + 3.0);
        world.finished("a", "success").await;
        assert_eq!(
            world.due_and_deadline("a").await,
            (Some(world.second(slot + 60)), Some(world.second(slot + 65)))
        );
        assert_eq!(world.down_within(56).await, 0);
    }
    assert_eq!(
        world.down_within(60).await,
        1,
        "the run that does not come is missed"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_that_is_reported_before_its_beat_speaks_loses_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.register(&[by_rule("a", Some(world.second(60)))]).await;

    world.moved_to(60.1);
    world.finished("a", "success").await;
    assert_eq!(world.due_and_deadline("a").await, (None, None));
    world.sent("a", Some(world.second(120))).await;

    assert_eq!(
        world.due_and_deadline("a").await,
        (Some(world.second(120)), Some(world.second(125)))
    );
    assert_eq!(world.down_within(66).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn never_again_ends_what_is_to_come_and_not_what_is_owed(pool: PgPool) {
    let world = World::new(pool).await;
    world
        .register(&[
            by_rule("over", Some(world.second(600))),
            by_rule("last", Some(world.second(60))),
        ])
        .await;

    world.sent("over", None).await;
    world.moved_to(60.2);
    world.sent("last", None).await;

    assert_eq!(world.due_and_deadline("over").await, (None, None));
    assert_eq!(world.down_within(3_600).await, 1);
    let last = world.entry("last").await;
    assert_eq!(world.incidents().await, [alerted(last.id.0, "UNKNOWN", true)]);
    world.finished("last", "success").await;
    assert_eq!(world.due_and_deadline("last").await, (None, None));
    assert_eq!(world.down_within(3_600).await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_hint_that_travelled_faster_than_the_one_before_does_not_excuse_its_slot(pool: PgPool) {
    let world = World::new(pool).await;
    // The first hints take 800 ms to arrive, so by the server's clock they mean 60.8. Beat sends the next hints without delay, after it has sent the
    // task.
    let entries = json!([
        by_rule("rule", Some(world.second(60))),
        by_rule("once", Some(world.second(60)))
    ]);
    let schedule = world.an_event("beat_schedule", json!({"beat": "shop", "entries": entries}));
    world.slowly(800, schedule).await;
    world.moved_to(60.05);
    world.sent("rule", Some(world.second(86_460))).await;
    world.sent("once", None).await;

    assert_eq!(world.down_within(10).await, 2, "sent, and neither was run");

    let causes: Vec<String> = world
        .incidents()
        .await
        .into_iter()
        .map(|alerted| alerted.cause)
        .collect();
    assert_eq!(causes, ["UNKNOWN", "UNKNOWN"]);
    for entry in ["rule", "once"] {
        world.finished(entry, "success").await;
    }
    assert_eq!(world.due_and_deadline("rule").await.0, Some(world.second(86_460)));
    assert_eq!(world.due_and_deadline("once").await.0, None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_whose_clock_is_fast_does_not_excuse_its_own_slots(pool: PgPool) {
    let world = World::new(pool).await;
    world.register(&[hourly("a")]).await;

    // By the server's clock, Beat has sent the entry a second before the hour.
    world.moved_to(3_599.0);
    world.sent("a", Some(world.second(7_199))).await;

    assert_eq!(
        world.due_and_deadline("a").await,
        (Some(world.second(3_600)), Some(world.second(3_605)))
    );
    assert_eq!(world.down_within(10).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn beat_may_move_a_slot_that_is_not_near(pool: PgPool) {
    let world = World::new(pool).await;
    world.register(&[by_rule("a", Some(world.second(600)))]).await;

    world.moved_to(500.0);
    world.sent("a", Some(world.second(900))).await;

    assert_eq!(
        world.due_and_deadline("a").await,
        (Some(world.second(900)), Some(world.second(905)))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_starts_again_near_a_slot_may_put_it_off(pool: PgPool) {
    let world = World::new(pool).await;
    let every_minute =
        json!({"name": "a", "schedule": {"kind": "interval", "seconds": 60}, "grace_seconds": 5.0});
    let mut again = every_minute.clone();
    world.register(&[every_minute]).await;

    // Beat has stored no last run, so it counts the interval anew from its start.
    world.moved_to(58.0);
    again["next_due_at"] = json!(world.second(118));
    world.register(&[again]).await;

    assert_eq!(world.due_and_deadline("a").await.0, Some(world.second(118)));
    assert_eq!(world.down_within(59).await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_a_person_paused_stays_paused_whatever_beat_says(pool: PgPool) {
    let world = World::new(pool).await;
    world.register(&[by_rule("a", Some(world.second(60)))]).await;
    let a = world.entry("a").await;
    monitor::pause(&world.services, &world.access, a.id)
        .await
        .unwrap();

    world.sent("a", Some(world.second(120))).await;

    assert_eq!(world.down_within(300).await, 0);
    assert_eq!(world.status(&a).await, Status::Paused);
    monitor::resume(&world.services, &world.access, a.id)
        .await
        .unwrap();
    world.sent("a", Some(world.second(360))).await;
    assert_eq!(world.due_and_deadline("a").await.1, Some(world.second(365)));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_changed_rule_forgets_what_was_said_of_the_old_one(pool: PgPool) {
    let world = World::new(pool).await;
    world.register(&[by_rule("a", Some(world.second(60)))]).await;

    let mut changed = by_rule("a", None);
    changed["schedule"]["text"] = json!("FREQ=WEEKLY");
    world.moved_to(62.0);
    world.register(&[changed]).await;

    assert_eq!(world.due_and_deadline("a").await, (None, None));
    assert_eq!(world.down_within(60).await, 0, "a change opens no incident");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_that_is_overdue_when_it_is_listed_is_due_now(pool: PgPool) {
    let world = World::new(pool).await;
    world.moved_to(100.0);

    world.register(&[by_rule("a", Some(world.second(70)))]).await;

    assert_eq!(
        world.due_and_deadline("a").await,
        (Some(world.second(100)), Some(world.second(105)))
    );
    assert_eq!(
        world.down_within(10).await,
        1,
        "Beat sends the entry at once, and no run starts"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slot_that_comes_while_its_list_is_on_its_way_is_watched(pool: PgPool) {
    let world = World::new(pool).await;
    let mut listed = by_rule("a", None);
    listed["next_due_at"] = json!("2026-01-15T12:01:00.300Z");
    world.moved_to(60.0);
    let event = world.an_event("beat_schedule", json!({"beat": "shop", "entries": [listed]}));
    world.moved_to(60.5);
    world.event(event).await;

    assert_eq!(world.down_within(10).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_gathered_while_we_were_away_raises_no_alarm(pool: PgPool) {
    for longest_run_seconds in [json!(null), json!(600.0)] {
        let world = World::new(pool.clone()).await;
        let mut entry = by_rule("a", Some(world.second(60)));
        entry["longest_run_seconds"] = longest_run_seconds.clone();
        let listed = world.an_event("beat_schedule", json!({"beat": "shop", "entries": [entry]}));
        let mut alerted = [listed, world.beat_due("shop", "a", Some(world.second(3_660)))].to_vec();
        let run = json!({"beat": "shop", "entry": "a", "run_id": uuid::Uuid::new_v4(), "outcome": "success"});
        for (kind, second) in [("run_started", 61), ("run_finished", 65)] {
            let mut event = world.an_event(kind, run.clone());
            event["at"] = json!(world.second(second));
            alerted.push(event);
        }

        // All reports arrive together, two minutes late: the list, and what Beat sent and what ran meanwhile.
        world.moved_to(180.0);
        assert_eq!(world.events(alerted).await, vec![Verdict::Accepted; 4]);

        assert_eq!(
            world.down_within(60).await,
            0,
            "longest run {longest_run_seconds}"
        );
        assert_eq!(world.due_and_deadline("a").await.0, Some(world.second(3_660)));
    }
}
