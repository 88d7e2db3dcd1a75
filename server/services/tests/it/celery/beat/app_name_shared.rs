//! Two applications share one name. Neither Beat retires the other's entries, and when one Beat dies, its entries are missed.

use deadbeat_domain::ids::{IncidentId, ProjectId};
use deadbeat_services::celery::event::Verdict;
use deadbeat_services::incident::acknowledgement;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::celery::beat::several_at_once::Process;
use crate::setup::{World, alerted, entry};

const SHOP: Process = Process(1);
const BILLING: Process = Process(2);
const NEXT: Process = Process(3);

impl Process {
    /// Lists entries with a slot every minute and 5 s of grace, as this Beat.
    async fn lists_often(self, world: &World, beat: &str, entries: &[&str]) {
        let entries: Vec<Value> = entries.iter().map(|name| entry(name)).collect();
        let list = self.identify(json!({"beat": beat, "entries": entries}));
        world.event(world.an_event("beat_schedule", list)).await;
    }
}

impl World {
    /// For some seconds, these processes report and these entries run every ten seconds.
    async fn run(&self, processes: &[Process], entries: &[&str], seconds: i64) {
        for _ in 0..seconds / 10 {
            for process in processes {
                process.is_reporting(self).await;
            }
            for entry in entries {
                self.finished(entry, "success").await;
            }
            self.sweep_after(10).await;
        }
    }

    /// Returns the names of the monitors that are not retired.
    async fn watched(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT name FROM monitor WHERE retired_at IS NULL ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Both Beats report, and an incident opens because they share the name.
    async fn share(&self) -> Uuid {
        SHOP.lists_often(self, "shop", &["a", "b"]).await;
        BILLING.lists_often(self, "shop", &["x", "y", "z"]).await;
        self.run(&[SHOP, BILLING], &["a", "b", "x", "y", "z"], 140).await;
        let beat = self.beat_id().await;
        assert_eq!(self.incidents().await, [alerted(beat, "APP_NAME_SHARED", true)]);
        beat
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn both_are_watched_from_the_start_and_it_is_reported_once(pool: PgPool) {
    let world = World::new(pool).await;
    SHOP.lists_often(&world, "shop", &["a", "b"]).await;
    BILLING.lists_often(&world, "shop", &["x", "y", "z"]).await;
    let all = ["a", "b", "x", "y", "z"];
    assert_eq!(world.watched().await, all);
    for _ in 0..4 {
        // The SDK sends the list repeatedly.
        SHOP.lists_often(&world, "shop", &["b", "a"]).await;
        world.run(&[SHOP, BILLING], &all, 30).await;
        BILLING.lists_often(&world, "shop", &["x", "y", "z"]).await;
        assert_eq!(world.watched().await, all);
    }
    world.run(&[SHOP, BILLING], &all, 300).await;

    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "APP_NAME_SHARED", true)]);
    let (evidence, repair): (Value, Value) = sqlx::query_as("SELECT evidence, repair FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    for fact in [
        "process 4001 on host-1 lists 2 entries: a, b.",
        "process 4002 on host-2 lists 3 entries: x, y, z.",
    ] {
        assert!(evidence.to_string().contains(fact), "{evidence}");
    }
    assert!(
        repair.to_string().contains("deadbeat.init(app, name="),
        "{repair}"
    );
    // Deadbeat retires an entry that leaves the schedule of one of the Beats.
    SHOP.lists_often(&world, "shop", &["a"]).await;
    assert_eq!(world.watched().await, ["a", "x", "y", "z"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_of_their_beats_dies_and_its_entries_are_one_incident_until_it_is_back(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.share().await;

    world.run(&[SHOP], &["a", "b"], 150).await;

    let shared = alerted(beat, "APP_NAME_SHARED", false);
    assert_eq!(
        world.incidents().await,
        [shared.clone(), alerted(beat, "BEAT_DOWN", true)]
    );
    let members = "SELECT count(*) FROM monitor WHERE status = 'down'";
    assert_eq!(world.count(members).await, 3);
    let summary: String = sqlx::query_scalar("SELECT summary FROM incident WHERE resolved_at IS NULL")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(
        summary.starts_with("One of the Celery Beats that report as shop is silent since"),
        "{summary}"
    );

    NEXT.lists_often(&world, "shop", &["x", "y", "z"]).await;
    world.run(&[SHOP, NEXT], &["a", "b", "x", "y", "z"], 60).await;

    assert_eq!(
        world.incidents().await,
        [shared, alerted(beat, "BEAT_DOWN", false)]
    );
    assert_eq!(world.count(members).await, 0);
    assert_eq!(world.watched().await, ["a", "b", "x", "y", "z"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn it_is_renamed_as_the_incident_says_and_nobody_is_paged_for_that(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.share().await;

    NEXT.lists_often(&world, "billing", &["x", "y", "z"]).await;
    for _ in 0..12 {
        let alive = json!({"beat": "billing", "period_seconds": 10.0, "grace_seconds": 20.0});
        world
            .event(world.an_event("beat_alive", NEXT.identify(alive)))
            .await;
        for name in ["x", "y", "z"] {
            let run =
                json!({"beat": "billing", "entry": name, "run_id": Uuid::new_v4(), "outcome": "success"});
            world.event(world.an_event("run_finished", run)).await;
        }
        world.run(&[SHOP], &["a", "b"], 10).await;
    }

    assert_eq!(world.incidents().await, [alerted(beat, "APP_NAME_SHARED", false)]);
    assert_eq!(
        world.watched().await,
        ["a", "b", "x", "y", "z"],
        "x, y and z belong to the new name"
    );
    let old = "SELECT count(*) FROM monitor JOIN beat ON beat.id = beat_id WHERE beat.name = 'shop' AND retired_at IS NULL";
    assert_eq!(world.count(old).await, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_of_another_project_that_lists_the_same_is_no_new_name(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.share().await;
    let other = ProjectId::generate();
    sqlx::query("INSERT INTO project (id, name, created_at) VALUES ($1, 'other', now())")
        .bind(other.0)
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO beat (id, project_id, name, status, period_seconds, grace_seconds, created_at, last_seen_at, incarnations)
        SELECT gen_random_uuid(), $1, 'billing', 'up', 10, 20, created_at, last_seen_at + interval '1 hour', incarnations FROM beat",
    )
    .bind(other.0)
    .execute(&world.pool)
    .await
    .unwrap();

    world.run(&[SHOP], &["a", "b"], 60).await;

    let alerted_now = [
        alerted(beat, "APP_NAME_SHARED", false),
        alerted(beat, "BEAT_DOWN", true),
    ];
    assert_eq!(world.incidents().await, alerted_now);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_person_knows_that_it_is_gone_for_good(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.share().await;
    world.run(&[SHOP], &["a", "b"], 150).await;
    let id: Uuid = sqlx::query_scalar("SELECT id FROM incident WHERE resolved_at IS NULL")
        .fetch_one(&world.pool)
        .await
        .unwrap();

    let seen = acknowledgement::acknowledge(&world.services, &world.access, IncidentId(id))
        .await
        .unwrap();

    assert!(seen.resolved_at.is_some());
    assert_eq!(world.watched().await, ["a", "b"]);
    world.run(&[SHOP], &["a", "b"], 200).await;
    let over = [
        alerted(beat, "APP_NAME_SHARED", false),
        alerted(beat, "BEAT_DOWN", false),
    ];
    assert_eq!(world.incidents().await, over);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deployment_with_another_schedule_retires_what_left_when_the_old_process_is_over(pool: PgPool) {
    let world = World::new(pool).await;
    for (boot, old, new) in [
        (10, ["a", "b"], ["b", "c"]),
        (11, ["b", "c"], ["c", "d"]),
        (12, ["c", "d"], ["e", "f"]),
    ] {
        let (before, after) = (Process(boot), Process(boot + 1));
        before.lists_often(&world, "shop", &old).await;
        world.run(&[before], &old, 60).await;
        after.lists_often(&world, "shop", &new).await;
        // The old process reports twice more. Entries that only it lists fall due while Deadbeat does not know whether it has ended.
        world.run(&[before, after], &new, 20).await;
        world.run(&[after], &new, 80).await;
        assert_eq!(world.watched().await, new);
    }
    assert_eq!(world.incidents().await, []);
    let lineages =
        "SELECT count(DISTINCT one -> 'lineage') FROM beat, jsonb_array_elements(incarnations) AS one";
    assert_eq!(world.count(lineages).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_killed_beat_that_is_replaced_after_its_grace_retires_at_once(pool: PgPool) {
    let world = World::new(pool).await;
    SHOP.lists_often(&world, "shop", &["a", "b"]).await;
    world.run(&[SHOP], &["a", "b"], 60).await;
    world.advance(31);
    NEXT.lists_often(&world, "shop", &["c"]).await;
    assert_eq!(world.watched().await, ["c"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_rolling_deployment_whose_new_schedule_is_empty_is_reported(pool: PgPool) {
    let world = World::new(pool).await;
    SHOP.lists_often(&world, "shop", &["a", "b", "c"]).await;
    world.run(&[SHOP], &["a", "b", "c"], 60).await;
    NEXT.lists_often(&world, "shop", &[]).await;
    assert_eq!(world.watched().await, ["a", "b", "c"]);
    world.run(&[NEXT], &["a", "b", "c"], 120).await;

    assert_eq!(world.watched().await, [""; 0]);
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "SCHEDULE_EMPTIED", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_that_both_list_follows_the_one_that_was_there_before(pool: PgPool) {
    let world = World::new(pool).await;
    let beat = world.share().await;
    let cleanup = |seconds: i64| {
        let mut one = entry("cleanup");
        one["schedule"] = json!({"kind": "interval", "seconds": seconds});
        one
    };
    let lists = async |process: Process, names: &[&str], seconds: i64| {
        let mut entries: Vec<Value> = names.iter().map(|name| entry(name)).collect();
        entries.push(cleanup(seconds));
        let list = process.identify(json!({"beat": "shop", "entries": entries}));
        world.event(world.an_event("beat_schedule", list)).await;
    };
    lists(SHOP, &["a", "b"], 1_000).await;
    lists(BILLING, &["x", "y", "z"], 77_000).await;
    let seconds = "SELECT (schedule ->> 'seconds')::float8::bigint FROM monitor WHERE name = 'cleanup'";
    assert_eq!(world.count(seconds).await, 1_000);
    lists(SHOP, &["a", "b"], 2_000).await;
    assert_eq!(world.count(seconds).await, 2_000);
    // One Beat removes `cleanup` from its schedule, and the other one keeps it.
    SHOP.lists_often(&world, "shop", &["a", "b"]).await;
    assert_eq!(world.watched().await, ["a", "b", "cleanup", "x", "y", "z"]);
    lists(BILLING, &["x", "y", "z"], 3_000).await;
    assert_eq!(world.count(seconds).await, 3_000);
    assert_eq!(world.incidents().await, [alerted(beat, "APP_NAME_SHARED", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn entries_of_one_name_are_said_not_to_be_watched_apart(pool: PgPool) {
    let world = World::new(pool).await;
    let all = ["a", "b", "cleanup", "x", "y", "z"];
    SHOP.lists_often(&world, "shop", &["a", "b", "cleanup"]).await;
    BILLING
        .lists_often(&world, "shop", &["x", "y", "z", "cleanup"])
        .await;
    world.run(&[SHOP, BILLING], &all, 140).await;
    let beat = world.beat_id().await;
    assert_eq!(world.incidents().await, [alerted(beat, "APP_NAME_SHARED", true)]);
    let said = async || -> (String, Value) {
        sqlx::query_as("SELECT summary, evidence FROM incident WHERE resolved_at IS NULL")
            .fetch_one(&world.pool)
            .await
            .unwrap()
    };
    let (summary, evidence) = said().await;
    let apart = "cannot distinguish one entry that they have in common";
    assert!(summary.contains(apart), "{summary}");
    let names = "list 1 entry of one name: cleanup. Deadbeat watches each name once";
    assert!(evidence.to_string().contains(names), "{evidence}");

    // Billing's Beat dies. Its own entries are missed; the other Beat still sends the entry that both list.
    world.run(&[SHOP], &["a", "b", "cleanup"], 150).await;

    let shared = alerted(beat, "APP_NAME_SHARED", false);
    assert_eq!(
        world.incidents().await,
        [shared, alerted(beat, "BEAT_DOWN", true)]
    );
    let down = "SELECT string_agg(name, ' ' ORDER BY name) FROM monitor WHERE status = 'down'";
    let down: String = sqlx::query_scalar(down).fetch_one(&world.pool).await.unwrap();
    assert_eq!(down, "x y z");
    let (_, evidence) = said().await;
    let names = "list 1 entry of one name: cleanup. Deadbeat watches each name once: while another Beat sends such an entry, it stays up";
    assert!(evidence.to_string().contains(names), "{evidence}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_belongs_to_nobody_that_is_known_is_retired_with_the_next_list(pool: PgPool) {
    let world = World::new(pool).await;
    world.share().await;
    sqlx::query("UPDATE beat SET incarnations = '[]'")
        .execute(&world.pool)
        .await
        .unwrap();
    NEXT.lists_often(&world, "shop", &["a", "x"]).await;
    assert_eq!(world.watched().await, ["a", "x"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ninth_application_of_one_name_is_refused_and_the_others_stay(pool: PgPool) {
    let world = World::new(pool).await;
    for boot in 1..=8 {
        Process(boot)
            .lists_often(&world, "shop", &[&format!("entry {boot}")])
            .await;
    }
    let ninth = json!({"beat": "shop", "entries": [entry("ninth")]});
    let ninth = world.an_event("beat_schedule", Process(9).identify(ninth));
    let verdicts = world.events(vec![ninth]).await;
    assert!(
        matches!(&verdicts[..], [Verdict::Rejected { code: "refused", .. }]),
        "{verdicts:?}"
    );
    assert_eq!(world.watched().await.len(), 8);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_large_schedule_is_released_in_steps(pool: PgPool) {
    let world = World::new(pool).await;
    let names: Vec<String> = (0..450).map(|n| format!("entry {n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    SHOP.lists_often(&world, "shop", &names).await;
    world.advance(1);
    SHOP.is_reporting(&world).await;
    NEXT.lists_often(&world, "shop", &names[440..]).await;
    assert_eq!(world.watched().await.len(), 450);
    world.advance(31);
    NEXT.is_reporting(&world).await;
    assert_eq!(world.watched().await, names[440..]);
    assert_eq!(
        world
            .count("SELECT count(*) FROM monitor WHERE listed_by & 1 <> 0 AND retired_at IS NULL")
            .await,
        0
    );
}
