//! The change feed: which use cases write which changes, and what a reader receives.

mod reading;

use deadbeat_domain::ids::{ApiKeyId, BeatId, IncidentId};
use deadbeat_domain::monitor::ping::PingKind::{Fail, Log, Start, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::key::Scope;
use deadbeat_services::alert::{channel, policy, rotation};
use deadbeat_services::celery::beat;
use deadbeat_services::feed::{self, Changes};
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::monitor::{self, Change};
use deadbeat_services::people::{api_key, project};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::alert::rotation::{settings, step};
use crate::setup::World;

/// A change as the tests compare it: subject kind, subject id, and what changed.
type Seen = (String, Uuid, String);

fn seen(kind: &str, id: impl Into<Uuid>, what: &str) -> Seen {
    (kind.to_owned(), id.into(), what.to_owned())
}

impl World {
    async fn changes(&self, after: Option<i64>, limit: i64) -> Changes {
        feed::read(&self.services, &self.access, after, limit)
            .await
            .unwrap()
    }

    /// Returns the sequence number of the newest change.
    async fn position(&self) -> i64 {
        self.changes(None, 1).await.next_after
    }

    /// Returns the changes since a position.
    async fn changed_since(&self, after: i64) -> Vec<Seen> {
        let found = self.changes(Some(after), 500).await;
        assert!(!found.must_reload);
        let of = |one: deadbeat_store::feed::Stored| (one.subject_kind, one.subject_id, one.what);
        found.changes.into_iter().map(of).collect()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_a_person_changes_is_in_the_feed(pool: PgPool) {
    let world = World::new(pool).await;
    let (services, access) = (&world.services, &world.access);

    let start = world.position().await;
    let job = world.monitor("job").await;
    let renamed = Change {
        name: Some("Renamed".to_owned()),
        ..Change::default()
    };
    monitor::update(services, access, job.id, &renamed).await.unwrap();
    let by_code = Change {
        schedule: Some(json!({"kind": "interval", "seconds": 60})),
        ..renamed
    };
    let (coded, _) = monitor::upsert(services, access, &by_code, "coded")
        .await
        .unwrap();
    monitor::pause(services, access, job.id).await.unwrap();
    // A second pause changes nothing.
    monitor::pause(services, access, job.id).await.unwrap();
    monitor::resume(services, access, job.id).await.unwrap();
    monitor::delete(services, access, coded.id).await.unwrap();
    let (job, coded) = (job.id.0, coded.id.0);
    assert_eq!(
        world.changed_since(start).await,
        [
            seen("monitor", job, "created"),
            seen("monitor", job, "changed"),
            seen("monitor", coded, "created"),
            seen("monitor", job, "status"),
            seen("monitor", job, "status"),
            seen("monitor", coded, "status"),
            seen("monitor", coded, "deleted"),
        ]
    );

    let start = world.position().await;
    let hook = world.channel("hook").await;
    channel::update(services, access, hook, Some("Night"), None)
        .await
        .unwrap();
    let rotation = world.rotation(settings(&[("Ann", &[hook])])).await.unwrap();
    rotation::update(services, access, rotation, |_| {})
        .await
        .unwrap();
    let steps = [step(0, &[("rotation", rotation.0)])];
    let default = json!({"name": "Default", "steps": steps});
    let default = world.policy(default).await.unwrap();
    policy::update(services, access, default, |_| {}).await.unwrap();
    policy::delete(services, access, default).await.unwrap();
    rotation::delete(services, access, rotation).await.unwrap();
    channel::delete(services, access, hook).await.unwrap();
    let unknown = ApiKeyId::generate();
    let (key, _) = api_key::issue(services, access, "CI", Scope::Ping).await.unwrap();
    api_key::revoke(services, access, key.id).await.unwrap();
    project::update(services, access, Some("Shop"), None)
        .await
        .unwrap();
    assert_eq!(
        world.changed_since(start).await,
        [
            seen("channel", hook.0, "created"),
            seen("channel", hook.0, "changed"),
            seen("rotation", rotation.0, "created"),
            seen("rotation", rotation.0, "changed"),
            seen("escalation_policy", default.0, "created"),
            seen("escalation_policy", default.0, "changed"),
            seen("escalation_policy", default.0, "deleted"),
            seen("rotation", rotation.0, "deleted"),
            seen("channel", hook.0, "deleted"),
            seen("api_key", key.id.0, "created"),
            seen("api_key", key.id.0, "deleted"),
            seen("project", world.project.0, "changed"),
        ]
    );

    // A refused request writes no change.
    let start = world.position().await;
    let nobody = deadbeat_domain::ids::MonitorId::generate();
    assert!(monitor::delete(services, access, nobody).await.is_err());
    assert!(channel::delete(services, access, hook).await.is_err());
    assert!(api_key::revoke(services, access, unknown).await.is_err());
    let incident = IncidentId::generate();
    assert!(
        acknowledgement::acknowledge(services, access, incident)
            .await
            .is_err()
    );
    let none = Change {
        schedule: Some(json!({})),
        ..Change::default()
    };
    assert!(monitor::create(services, access, &none).await.is_err());
    assert_eq!(world.changed_since(start).await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn status_and_incidents_are_in_the_feed_and_plain_pings_are_not(pool: PgPool) {
    let world = World::new(pool).await;
    let job = world.monitor("job").await;
    let incident = async |number: i64| {
        let id: Uuid = sqlx::query_scalar("SELECT id FROM incident ORDER BY id OFFSET $1 LIMIT 1")
            .bind(number)
            .fetch_one(&world.pool)
            .await
            .unwrap();
        id
    };

    let start = world.position().await;
    world.ping(&job, Success).await;
    assert_eq!(
        world.changed_since(start).await,
        [seen("monitor", job.id.0, "status")],
        "the first ping arms it"
    );
    let start = world.position().await;
    for _ in 0..5 {
        world.ping(&job, Success).await;
    }
    world.sweep_after(30).await;
    assert_eq!(world.changed_since(start).await, []);

    world.sweep_after(90).await;
    let missed = incident(0).await;
    acknowledgement::acknowledge(&world.services, &world.access, IncidentId(missed))
        .await
        .unwrap();
    world.ping(&job, Success).await;
    world.ping(&job, Fail).await;
    // The monitor is down already, so another failure changes nothing.
    world.ping(&job, Fail).await;
    let failed = incident(1).await;
    assert_eq!(
        world.changed_since(start).await,
        [
            seen("monitor", job.id.0, "status"),
            seen("incident", missed, "opened"),
            seen("incident", missed, "acknowledged"),
            seen("monitor", job.id.0, "status"),
            seen("incident", missed, "resolved"),
            seen("monitor", job.id.0, "status"),
            seen("incident", failed, "opened"),
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_celery_changes_is_in_the_feed(pool: PgPool) {
    let world = World::new(pool).await;
    world.alive().await;
    let start = world.position().await;

    world.schedule(&["one", "two"]).await;
    let (one, two) = (world.entry("one").await.id.0, world.entry("two").await.id.0);
    // The same list and the same reports again change nothing.
    world.schedule(&["one", "two"]).await;
    world.alive().await;
    let registered = world.changed_since(start).await;
    assert_eq!(
        registered,
        [seen("monitor", one, "created"), seen("monitor", two, "created")]
    );

    let start = world.position().await;
    world.schedule(&["one"]).await;
    assert_eq!(
        world.changed_since(start).await,
        [seen("monitor", two, "changed"), seen("monitor", two, "status")]
    );

    let start = world.position().await;
    let beat_id: Uuid = sqlx::query_scalar("SELECT id FROM beat")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    world.sweep_after(31).await;
    let incident: Uuid = sqlx::query_scalar("SELECT id FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        world.changed_since(start).await,
        [
            seen("beat", beat_id, "status"),
            seen("incident", incident, "opened")
        ]
    );

    let start = world.position().await;
    beat::delete(&world.services, &world.access, BeatId(beat_id))
        .await
        .unwrap();
    let gone = world.changed_since(start).await;
    for one in [
        seen("monitor", one, "deleted"),
        seen("monitor", two, "deleted"),
        seen("beat", beat_id, "deleted"),
        seen("incident", incident, "resolved"),
    ] {
        assert!(gone.contains(&one), "{one:?}: {gone:?}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn parts_of_celery_that_report_for_the_first_time_are_in_the_feed(pool: PgPool) {
    let world = World::new(pool).await;
    let id = async |table: &'static str| -> Uuid {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT id FROM {table}")))
            .fetch_one(&world.pool)
            .await
            .unwrap()
    };

    world.alive().await;
    world.worker_says("celery@w1", json!({})).await;
    let queue = json!({"name": "celery", "depth": 1, "oldest_seconds": 1.0, "oldest_task": "shop.report"});
    let sample = json!({"app": "shop", "worker": "celery@w1", "transport": "redis", "reachable": true, "queues": [queue]});
    world.event(world.an_event("broker_sample", sample.clone())).await;

    let found = world.changed_since(0).await;
    let expected = [
        seen("beat", id("beat").await, "status"),
        seen("worker", id("worker").await, "status"),
        seen("broker", id("broker").await, "status"),
        seen("queue", id("queue").await, "status"),
    ];
    for one in &expected {
        assert!(found.contains(one), "{one:?}: {found:?}");
    }
    // Further reports of these processes change only samples.
    for _ in 0..3 {
        world.advance(5);
        world.alive().await;
        world.worker_says("celery@w1", json!({"active": 3})).await;
        world.event(world.an_event("broker_sample", sample.clone())).await;
    }
    assert_eq!(world.changed_since(found.len() as i64).await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_that_gets_members_is_in_the_feed(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["one", "two"]).await;
    world.advance(50);
    world.alive().await;
    assert_eq!(
        world.sweep_after(15).await.down,
        0,
        "the entries wait for the verdict on Beat"
    );
    assert_eq!(world.sweep_after(15).await.down, 1, "Beat");
    let incident: Uuid = sqlx::query_scalar("SELECT id FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let start = world.position().await;

    assert_eq!(world.sweep_after(2).await.down, 2, "its monitors");

    let (one, two) = (world.entry("one").await.id.0, world.entry("two").await.id.0);
    let mut found = world.changed_since(start).await;
    found.sort();
    let mut expected = [
        seen("incident", incident, "changed"),
        seen("monitor", one, "status"),
        seen("monitor", two, "status"),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sweep_of_a_thousand_writes_its_changes_in_one_statement(pool: PgPool) {
    let world = World::new(pool).await;
    let job = world.monitor("job").await;
    world.ping(&job, Success).await;
    sqlx::query(
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels, status, created_at,
            updated_at, delay_seconds, next_due_at, deadline_at, check_after, last_ping_at)
        SELECT gen_random_uuid(), project_id, gen_random_uuid(), 'job-' || n, name, tags, schedule, grace_seconds, all_channels, status,
            created_at, created_at, 0, next_due_at, deadline_at, check_after, last_ping_at
        FROM monitor, generate_series(1, 999) AS n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let start = world.position().await;

    let swept = world.sweep_after(90).await;

    assert_eq!(swept.down, 1_000);
    assert_eq!(world.position().await - start, 2_000, "statuses and incidents");
    let (statements, transactions): (i64, i64) = sqlx::query_as(
        "SELECT count(DISTINCT (xmin::text, cmin::text)), count(DISTINCT xmin::text) FROM change WHERE sequence > $1",
    )
    .bind(start)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(statements, transactions);
    assert!(transactions <= 3, "{transactions} transactions of a sweep");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn plain_pings_do_not_wait_for_a_held_counter(pool: PgPool) {
    let world = World::new(pool).await;
    let job = world.monitor("job").await;
    world.ping(&job, Success).await;
    // A process stopped between its last statement and its commit, and holds its lock.
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query("SELECT last FROM change_counter FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();

    for _ in 0..3 {
        world.ping(&job, Success).await;
    }

    held.rollback().await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 4);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_healthy_job_writes_nothing_whatever_it_sends(pool: PgPool) {
    let world = World::new(pool).await;
    let job = world
        .monitor_with(
            "job",
            Change {
                longest_run_seconds: Some(Some(600.0)),
                ..Change::default()
            },
        )
        .await;
    world.ping(&job, Success).await;
    let start = world.position().await;

    for run in 1..=3 {
        world.advance(20);
        world.ping_of(&job, run, Start).await;
        world.ping_of(&job, run, Log).await;
        world.ping_of(&job, run, Success).await;
        // The same report comes once more, and one without a run id.
        world.ping_of(&job, run, Success).await;
        world.ping(&job, Success).await;
        world.sweep().await;
    }

    assert_eq!(world.changed_since(start).await, []);
    assert_eq!(world.status(&job).await, Status::Up);
}
