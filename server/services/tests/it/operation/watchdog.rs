//! Deadbeat pings the other monitoring service only while everything works.

use std::sync::Arc;

use deadbeat_services::alert::delivery::outbound::{Outbound, OutboundSettings};
use deadbeat_services::operation::selfwatch::Selfwatch;
use deadbeat_services::operation::watchdog::Watchdog;
use deadbeat_testkit::Receiver;
use sqlx::PgPool;

use deadbeat_domain::monitor::ping::PingKind::Success;

use crate::setup::World;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn it_is_reported_only_while_the_work_is_done(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let selfwatch = Selfwatch::new(true, None);
    let outbound = Outbound::new(&OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    })
    .unwrap();
    let clock = Arc::new(world.clock.clone());
    let watchdog = Watchdog::new(
        receiver.url("/ping"),
        outbound,
        selfwatch.clone(),
        world.store().reader(),
        clock,
    );

    world.sweep().await;
    let never_swept = watchdog.report_once().await.unwrap_err();
    assert!(never_swept.contains("evaluator Some(false)"), "{never_swept}");

    selfwatch.swept(world.now());
    watchdog.report_once().await.unwrap();
    assert_eq!(receiver.requests().len(), 1);

    // The loop runs, but no sweep judges overdue monitors.
    let monitor = world.monitor("m").await;
    world.ping(&monitor, Success).await;
    world.advance(300);
    selfwatch.swept(world.now());
    let behind = watchdog.report_once().await.unwrap_err();
    assert!(behind.contains("the evaluator is behind"), "{behind}");

    world.sweep().await;
    watchdog.report_once().await.unwrap();
    assert_eq!(receiver.requests().len(), 2);

    world.pool.close().await;
    let gone = watchdog.report_once().await.unwrap_err();
    assert!(gone.contains("database false"), "{gone}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_process_that_only_serves_knows_when_somebody_last_swept(pool: PgPool) {
    let world = World::new(pool).await;
    let serving = Selfwatch::default();
    let asked = async |world: &World| serving.readiness(&world.store().reader(), world.now()).await;
    let before = asked(&world).await;
    assert_eq!(
        (before.any_sweep_at(), before.is_judging(world.now())),
        (None, false)
    );

    world.sweep().await;
    let swept_at = world.now();
    let fresh = asked(&world).await;
    assert_eq!(fresh.any_sweep_at(), Some(swept_at));
    assert!(fresh.is_judging(world.now()) && fresh.is_ready());

    world.advance(11);
    let stale = asked(&world).await;
    assert_eq!(stale.any_sweep_at(), Some(swept_at));
    // Taking the process out of rotation would not repair it.
    assert!(!stale.is_judging(world.now()) && stale.is_ready());
}
