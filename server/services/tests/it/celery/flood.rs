//! One project reports runs without end. The number of its waiting reports is bounded, and another project's signals get through.

use std::sync::atomic::{AtomicBool, Ordering};

use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_services::ServiceError;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::World;

/// The number of concurrent requests. Each has as many ended runs as a batch allows, so together they exceed a project's share.
const REQUESTS: usize = 10;
const RUNS: usize = 1_000;
/// The limits `SIGNALS` and `STAGES` of server/services/src/celery/event/share.rs.
const SIGNALS: usize = 256;
const STAGES: usize = 4_096;

fn ended(world: &World) -> Value {
    let run = json!({"beat": "shop", "entry": "flooded", "run_id": Uuid::new_v4(), "outcome": "success"});
    world.an_event("run_finished", run)
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_flood_of_runs_leaves_room_in_every_queue(pool: PgPool) {
    let world = World::new(pool).await;
    world.schedule(&["flooded"]).await;
    let other = world.monitor("other").await;
    let (services, is_over) = (&world.services, AtomicBool::new(false));

    let flood = async {
        let answers = join_all((0..REQUESTS).map(|_| {
            let events: Vec<Value> = (0..RUNS).map(|_| ended(&world)).collect();
            world.batch(json!({"sent_at": world.now(), "events": events}))
        }))
        .await;
        is_over.store(true, Ordering::Relaxed);
        answers
    };
    let measure = async {
        let (mut signals, mut stages, mut pings) = (0, 0, 0);
        while !is_over.load(Ordering::Relaxed) {
            signals = signals.max(services.ingest().waiting());
            stages = stages.max(services.traces().waiting());
            // A signal that does not come from an event waits for no share.
            let answer = world.accept(Address::Ping(other.ping_id), Success).await;
            assert_eq!(answer, Ok(Accepted::Recorded));
            pings += 1;
        }
        (signals, stages, pings)
    };
    let (answers, (signals, stages, pings)) = tokio::join!(flood, measure);

    assert!(signals <= SIGNALS + 1, "{signals} signals waited");
    assert!(stages <= STAGES, "{stages} stages waited");
    let mut taken = 0;
    for answer in &answers {
        match answer {
            Ok(verdicts) => taken += verdicts.len(),
            Err(ServiceError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(taken > 0);
    // Deadbeat has recorded what it acknowledged. It may have recorded part of a refused request, which the SDK sends again.
    let flooded = world.entry("flooded").await;
    assert!(world.read(flooded.id).await.state.ping_count >= taken as i64);
    assert_eq!(world.read(other.id).await.state.ping_count, pings);
}
