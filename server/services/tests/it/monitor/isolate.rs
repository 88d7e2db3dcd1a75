//! The writer splits a batch with a signal that cannot be written. The number of transactions is small, whatever the size of the batch.

use std::time::Duration;

use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::Ingest;
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::signal::spool::Spool;
use deadbeat_store::Store;
use deadbeat_store::monitor::Monitor;
use futures::future::join_all;
use sqlx::PgPool;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::monitor::spool::{Folder, away, wait_until, writer};
use crate::monitor::spool_faults::{direct, settled};
use crate::setup::World;

/// The number of signals in one batch.
const BATCH: usize = 512;
/// The number of transactions that a bad signal may cost: 16 parts in each of three steps.
const MOST: i64 = 48;

/// Returns monitors without a fault. Each gets less than its share of a batch.
async fn well(world: &World) -> Vec<Monitor> {
    let mut monitors = Vec::new();
    for n in 0..16 {
        monitors.push(world.monitor(&format!("well {n}")).await);
    }
    monitors
}

/// Returns a monitor whose pings the database refuses, because a row with the first ping's number exists.
async fn bad(world: &World, name: &str) -> Monitor {
    let bad = world.monitor(name).await;
    sqlx::query("INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes) VALUES ($1, 1, $2, 'log', 'http', 0)")
        .bind(bad.id.0)
        .bind(world.now())
        .execute(&world.pool)
        .await
        .unwrap();
    bad
}

/// Makes 512 signals: those at the given places for the bad monitors, and the others for the good ones.
fn batch(world: &World, well: &[Monitor], bad: &[(usize, &Monitor)]) -> Vec<Incoming> {
    let to = |place: usize| {
        let bad = bad
            .iter()
            .find(|(at, _)| *at == place)
            .map(|(_, monitor)| *monitor);
        let monitor = bad.unwrap_or(&well[place % well.len()]);
        crate::setup::incoming(Address::Ping(monitor.ping_id), world.signal(Success))
    };
    (0..BATCH).map(to).collect()
}

/// Makes the writer take all signals as one batch: they wait in the queue before the writer starts.
async fn accept_as_one(
    world: &World,
    store: Store,
    spool: Option<Spool>,
    batch: Vec<Incoming>,
) -> (Vec<bool>, Ingest, DropGuard) {
    let clock: std::sync::Arc<dyn deadbeat_domain::time::Clock> = std::sync::Arc::new(world.clock.clone());
    let (ingest, writers) = Ingest::new(
        &store,
        &clock,
        &world.site,
        &world.bell,
        Registry::default(),
        vec![spool],
    );
    let answers = tokio::task::unconstrained(join_all(batch.into_iter().map(|one| ingest.accept(one))));
    let stop = CancellationToken::new();
    let begin = async {
        tokio::task::yield_now().await;
        tokio::spawn(writers.run(stop.clone()));
    };
    let (answers, ()) = tokio::join!(answers, begin);
    let recorded = answers
        .iter()
        .map(|answer| *answer == Ok(Accepted::Recorded))
        .collect();
    (recorded, ingest, stop.drop_guard())
}

/// Returns the number of transactions that wrote pings of the good monitors.
async fn transactions(world: &World) -> i64 {
    world
        .count(
            "SELECT count(DISTINCT ping.xmin::text) FROM ping JOIN monitor ON monitor.id = monitor_id \
            WHERE monitor.name LIKE 'well %'",
        )
        .await
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn signals_that_the_database_refuses_cost_a_batch_few_transactions(pool: PgPool) {
    let world = World::new(pool).await;
    let well = well(&world).await;
    let bads = [bad(&world, "bad 1").await, bad(&world, "bad 2").await];
    // The bad signals are at the first place, next to one another, in the middle and at the last place.
    let places = [0, 1, 200, 511];
    let marked: Vec<(usize, &Monitor)> = places.iter().map(|place| (*place, &bads[place % 2])).collect();

    let (recorded, _ingest, _stop) =
        accept_as_one(&world, world.store(), None, batch(&world, &well, &marked)).await;

    let refused: Vec<usize> = (0..BATCH).filter(|place| !recorded[*place]).collect();
    assert_eq!(refused, places);
    assert_eq!(
        world.count("SELECT count(*) FROM ping").await as usize,
        BATCH - places.len() + bads.len()
    );
    let transactions = transactions(&world).await;
    assert!(transactions <= MOST * 3, "{transactions} transactions");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_signal_that_times_out_costs_a_batch_few_transactions(pool: PgPool) {
    let world = World::new(pool).await;
    let well = well(&world).await;
    let slow = world.monitor("slow").await;
    super::aside::make_slow(&world, &slow).await;
    let folder = Folder::new();

    let (recorded, ingest, _stop) = accept_as_one(
        &world,
        direct(&world, Duration::from_secs(10)),
        Some(folder.open()),
        batch(&world, &well, &[(100, &slow), (101, &slow), (300, &slow)]),
    )
    .await;

    assert!(recorded.iter().all(|recorded| *recorded));
    // On a slow machine, the batch may go through the spool, where good signals time out, too.
    settled(async || (ingest.aside(), ingest.spooled()) == (3, 0)).await;
    let transactions = transactions(&world).await;
    assert!(transactions <= MOST * 2, "{transactions} transactions");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_spooled_signal_that_the_database_refuses_costs_few_transactions(pool: PgPool) {
    let world = World::new(pool).await;
    let well = well(&world).await;
    let bad = bad(&world, "bad").await;
    let folder = Folder::new();
    let signals = batch(&world, &well, &[(7, &bad), (8, &bad), (400, &bad)]);
    let (recorded, spooling, stop) = accept_as_one(&world, away(), Some(folder.open()), signals).await;
    assert!(recorded.iter().all(|recorded| *recorded));
    drop((spooling, stop));
    wait_until(async || Spool::open(&folder.file(), 1_000_000).is_ok()).await;

    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    settled(async || ingest.spooled() == 0).await;

    assert_eq!(ingest.aside(), 3);
    assert_eq!(
        world.count("SELECT count(*) FROM ping").await as usize,
        BATCH - 3 + 1
    );
    let transactions = transactions(&world).await;
    assert!(transactions <= MOST * 2, "{transactions} transactions");
}
