//! The server puts an unreadable row aside, logs it and counts it. The row delays no other row.

use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::monitor::status::Status;
use serde_json::json;
use sqlx::PgPool;

use crate::setup::World;

impl World {
    async fn spoil(&self, statement: &'static str) {
        let done = sqlx::query(statement).execute(&self.pool).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{statement}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_unreadable_beat_does_not_keep_others_from_being_judged(pool: PgPool) {
    let world = World::new(pool).await;
    for name in ["shop", "other"] {
        let alive = json!({"beat": name, "period_seconds": 10.0, "grace_seconds": 20.0, "host": "h1"});
        world.event(world.an_event("beat_alive", alive)).await;
    }
    world
        .spoil("UPDATE beat SET trouble = 'NONSENSE', trouble_since = now() WHERE name = 'shop'")
        .await;

    let swept = world.sweep_after(60).await;

    assert_eq!((swept.claimed, swept.down), (2, 1));
    assert_eq!(world.services.selfwatch().rows_put_aside(), 1);
    assert_eq!(
        world.sweep_after(60).await.claimed,
        0,
        "the row is put aside for an hour"
    );
    let down = "SELECT count(*) FROM beat WHERE name = 'other' AND status = 'down'";
    assert_eq!(world.count(down).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_unreadable_worker_does_not_keep_others_from_being_judged(pool: PgPool) {
    let world = World::new(pool).await;
    for name in ["celery@w1", "celery@w2"] {
        world.worker_says(name, json!({})).await;
    }
    world
        .spoil("UPDATE worker SET trouble = 'NONSENSE', trouble_since = now() WHERE name = 'celery@w1'")
        .await;

    let swept = world.sweep_after(60).await;

    assert_eq!((swept.claimed, swept.down), (2, 1));
    assert_eq!(world.services.selfwatch().rows_put_aside(), 1);
    // The evaluator keeps checking whether a lost worker has a successor. It claims the second worker, and nothing else.
    assert_eq!(world.sweep_after(60).await.claimed, 1);
    let aside = world.services.selfwatch().rows_put_aside();
    assert_eq!(aside, 1, "the first worker is put aside for an hour");
    let down = "SELECT count(*) FROM worker WHERE name = 'celery@w2' AND status = 'down'";
    assert_eq!(world.count(down).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_unreadable_incident_does_not_keep_others_from_being_reported_again(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    for name in ["bad", "good"] {
        let monitor = world.monitor(name).await;
        world.ping(&monitor, Success).await;
    }
    assert_eq!(world.sweep_after(90).await.down, 2);
    world
        .spoil("UPDATE incident SET cause = 'NONSENSE' WHERE subject_name = 'bad'")
        .await;

    let swept = world.sweep_after(3_600).await;

    assert_eq!(swept.reminded, 1);
    assert_eq!(world.services.selfwatch().rows_put_aside(), 1);
    assert_eq!(
        world.sweep_after(60).await.reminded,
        0,
        "neither incident is due again"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_unreadable_incident_does_not_keep_others_from_ending(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let (bad, good) = (world.monitor("bad").await, world.monitor("good").await);
    for monitor in [&bad, &good] {
        world.ping(monitor, Success).await;
    }
    assert_eq!(world.sweep_after(90).await.down, 2);
    world
        .spoil("UPDATE incident SET cause = 'NONSENSE' WHERE subject_name = 'bad'")
        .await;
    let counted = deadbeat_services::incident::unreadable();

    // Both pings are for one batch. The writer takes them together or one after the other, and must record both.
    tokio::join!(world.ping(&bad, Success), world.ping(&good, Success));

    for monitor in [&bad, &good] {
        assert_eq!(world.status(monitor).await, Status::Up);
    }
    let open = "SELECT count(*) FROM incident WHERE resolved_at IS NULL";
    assert_eq!(world.count(open).await, 0);
    assert_eq!(world.alerts().await, ["opened", "opened", "resolved"]);
    assert!(deadbeat_services::incident::unreadable() > counted);
}
