//! The retention removes subjects without reports and revoked keys. Each kind has its own number of days.

use chrono::TimeDelta;
use deadbeat_domain::people::key::Scope;
use deadbeat_services::operation::retention::RetentionSettings;
use deadbeat_services::people::api_key;
use serde_json::json;
use sqlx::PgPool;

use crate::operation::retention::retention;
use crate::setup::World;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_not_reported_and_what_is_revoked_have_days_of_their_own(pool: PgPool) {
    let world = World::new(pool).await;
    world
        .worker_says("celery@gone", json!({"state": "stopped"}))
        .await;
    let sample = json!({"app": "shop", "reachable": true, "queues": [{"name": "celery", "depth": 0}]});
    world.event(world.an_event("broker_sample", sample)).await;
    let issue = |name| api_key::issue(&world.services, &world.access, name, Scope::Read);
    let (revoked, _) = issue("revoked").await.unwrap();
    issue("valid").await.unwrap();
    api_key::revoke(&world.services, &world.access, revoked.id)
        .await
        .unwrap();
    let before = world.count("SELECT count(*) FROM api_key").await;
    let keep = RetentionSettings {
        worker_days: 2,
        queue_days: 4,
        broker_days: 6,
        revoked_key_days: 8,
        ..RetentionSettings::default()
    };
    let retention = retention(&world, keep);

    let mut left = Vec::new();
    for _ in 0..5 {
        retention.pass_once().await.unwrap();
        let mut counts = Vec::new();
        for count in [
            "SELECT count(*) FROM worker",
            "SELECT count(*) FROM queue",
            "SELECT count(*) FROM broker",
            "SELECT count(*) FROM api_key",
        ] {
            counts.push(world.count(count).await);
        }
        left.push(counts);
        world.clock.advance(TimeDelta::days(2) + TimeDelta::seconds(1));
    }

    assert_eq!(
        left,
        [
            [1, 1, 1, before],
            [0, 1, 1, before],
            [0, 0, 1, before],
            [0, 0, 0, before],
            [0, 0, 0, before - 1]
        ]
    );
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM api_key WHERE name IN ('valid', 'revoked')")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(names, ["valid"]);
}
