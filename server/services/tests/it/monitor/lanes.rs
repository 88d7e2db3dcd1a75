//! A writer panics: its lane restarts, the process reports the fault meanwhile, and no monitor is judged for a refused signal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::time::Clock;
use deadbeat_services::Site;
use deadbeat_services::judge::evaluator::Evaluator;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::{Ingest, IngestError};
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::signal::spool::Spool;
use deadbeat_services::operation::listening::Listening;
use deadbeat_services::operation::selfwatch::Selfwatch;
use deadbeat_services::operation::supervisor::Health;
use deadbeat_testkit::PoisonedClock;
use sqlx::PgPool;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::setup::World;

/// A process with one lane. A test can make the clock of the writer panic.
struct Process {
    poison: PoisonedClock,
    ingest: Ingest,
    listening: Listening,
    evaluator: Evaluator,
    selfwatch: Selfwatch,
    _stop: DropGuard,
}

fn process(world: &World) -> Process {
    start(
        world,
        PoisonedClock::new(Arc::new(world.clock.clone()), "signal::writer"),
        None,
    )
}

fn start(world: &World, poison: PoisonedClock, spool: Option<Spool>) -> Process {
    let own: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let clock: Arc<dyn Clock> = Arc::new(poison.clone());
    let site = Site {
        url: "https://deadbeat.test".to_owned(),
    };
    let (store, lanes) = (world.store(), vec![spool]);
    let (ingest, writers) = Ingest::new(&store, &clock, &site, &Arc::default(), Registry::default(), lanes);
    let stop = CancellationToken::new();
    tokio::spawn(writers.run(stop.clone()));
    let listening = Listening::new(world.store(), Arc::clone(&own), ingest.clone());
    let selfwatch = Selfwatch::default();
    selfwatch.attend(ingest.health().clone());
    let evaluator = Evaluator::new(world.store(), own, site, Arc::default(), selfwatch.clone())
        .beside(listening.id(), ingest.health().clone());
    Process {
        poison,
        ingest,
        listening,
        evaluator,
        selfwatch,
        _stop: stop.drop_guard(),
    }
}

impl Process {
    async fn ping(&self, world: &World, address: &Address) -> Result<Accepted, IngestError> {
        let incoming = Incoming {
            address: address.clone(),
            signal: world.signal(Success),
            method: None,
            remote_addr: None,
            user_agent: None,
            body: Vec::new(),
        };
        self.ingest.accept(incoming).await
    }
}

/// Waits until a condition holds.
async fn wait_for(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not come within a minute");
}

async fn until(health: &Health, is_well: bool) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while health.is_well() != is_well {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the state changes within a minute");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lane_that_panics_comes_back_and_nobody_is_judged_meanwhile(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let to = Address::Ping(monitor.ping_id);
    let process = process(&world);
    let health = process.ingest.health();
    assert_eq!(process.ping(&world, &to).await, Ok(Accepted::Recorded));
    world.advance(90);
    process.listening.stamp_once().await.unwrap();
    let stamped = "SELECT extract(epoch FROM max(stamped_at))::bigint FROM listener";
    let stamped_at = world.count(stamped).await;

    process.poison.poison(1);
    assert_eq!(process.ping(&world, &to).await, Err(IngestError::Unavailable));
    until(health, false).await;

    assert_eq!(health.failed(), ["writer 1"]);
    let readiness = process
        .selfwatch
        .readiness(&world.store().reader(), world.now())
        .await;
    assert!(!readiness.is_ready());
    assert_eq!(readiness.failed_loops, ["writer 1"]);
    assert_eq!(
        process.evaluator.sweep_once().await.unwrap().down,
        0,
        "the monitor's report was refused"
    );
    world.advance(1);
    assert_eq!(process.listening.stamp_once().await.unwrap(), None);
    assert_eq!(
        world.count(stamped).await,
        stamped_at,
        "a process that refuses signals does not listen"
    );

    // Signals that arrive meanwhile wait for the next start.
    assert_eq!(process.ping(&world, &to).await, Ok(Accepted::Recorded));
    until(health, true).await;
    process.listening.stamp_once().await.unwrap();
    assert_eq!(process.evaluator.sweep_once().await.unwrap().down, 0);
    assert_eq!(world.status(&monitor).await, Status::Up);
    assert!(world.incidents().await.is_empty());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lane_that_panics_with_each_signal_is_never_well_between(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let to = Address::Ping(monitor.ping_id);
    let process = process(&world);

    process.poison.poison(3);
    for _ in 0..3 {
        assert_eq!(process.ping(&world, &to).await, Err(IngestError::Unavailable));
        until(process.ingest.health(), false).await;
    }
    assert_eq!(process.poison.doses(), 0);

    assert_eq!(process.ping(&world, &to).await, Ok(Accepted::Recorded));
    assert!(
        !process.ingest.health().is_well(),
        "the lane has not run for long enough yet"
    );
    until(process.ingest.health(), true).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_signal_that_makes_its_lane_panic_each_time_is_set_aside_after_two_restarts(pool: PgPool) {
    let world = World::new(pool).await;
    let (poisonous, other) = (world.monitor("poisonous").await, world.monitor("other").await);
    let to = Address::Ping(poisonous.ping_id);
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool"), 1_000_000).unwrap();
    let clock = PoisonedClock::new(Arc::new(world.clock.clone()), "signal::writer");
    let process = start(&world, clock, Some(spool));
    for _ in 0..2 {
        process.poison.poison(1);
        assert_eq!(process.ping(&world, &to).await, Err(IngestError::Unavailable));
        until(process.ingest.health(), false).await;
    }

    // The next user of the clock is the try beside the lane.
    process.poison.poison(1);
    assert_eq!(process.ping(&world, &to).await, Ok(Accepted::Recorded));
    let panicked = || process.ingest.figures().panicked.load(Ordering::Relaxed);
    wait_for("the panic", async || panicked() == 1).await;

    assert_eq!(process.ingest.aside(), 1, "the signal is kept");
    assert_eq!(
        process.ping(&world, &Address::Ping(other.ping_id)).await,
        Ok(Accepted::Recorded)
    );
    // The clock no longer panics, and the retry succeeds.
    wait_for("the signal", async || process.ingest.aside() == 0).await;
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 2);
    // The address is no longer suspect: its next signal goes through the lane with the others.
    assert_eq!(process.ping(&world, &to).await, Ok(Accepted::Recorded));
    assert_eq!(process.ingest.figures().set_aside.load(Ordering::Relaxed), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn without_a_spool_a_signal_that_panics_is_refused_and_all_others_are_written(pool: PgPool) {
    let world = World::new(pool).await;
    let (poisonous, other) = (world.monitor("poisonous").await, world.monitor("other").await);
    let to = Address::Ping(poisonous.ping_id);
    let process = process(&world);
    for _ in 0..2 {
        process.poison.poison(1);
        assert_eq!(process.ping(&world, &to).await, Err(IngestError::Unavailable));
        until(process.ingest.health(), false).await;
    }
    until(process.ingest.health(), true).await;

    process.poison.poison(1);
    assert_eq!(process.ping(&world, &to).await, Err(IngestError::Unavailable));
    assert_eq!(
        process.ping(&world, &Address::Ping(other.ping_id)).await,
        Ok(Accepted::Recorded)
    );

    assert_eq!(process.ingest.figures().panicked.load(Ordering::Relaxed), 1);
    assert!(process.ingest.health().is_well(), "the lane goes on");
    assert_eq!(process.ping(&world, &to).await, Ok(Accepted::Recorded));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_spooled_signal_that_makes_each_replay_panic_is_set_aside(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool"), 1_000_000).unwrap();
    let incoming = Incoming {
        address: Address::Ping(monitor.ping_id),
        signal: world.signal(Success),
        method: None,
        remote_addr: None,
        user_agent: None,
        body: Vec::new(),
    };
    spool.append(1..=1, &[incoming]).await.unwrap();

    // The clock compares this text with a backtrace, which also names files.
    let clock = PoisonedClock::new(Arc::new(world.clock.clone()), "signal/writer/replay.rs");
    clock.poison(usize::MAX);
    let process = start(&world, clock, Some(spool));

    wait_for("the signal", async || {
        process.ingest.spooled() == 0 && process.ingest.aside() == 0
    })
    .await;
    assert_eq!(process.poison.doses(), usize::MAX - 2, "the clock panicked twice");
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
    until(process.ingest.health(), true).await;
}
