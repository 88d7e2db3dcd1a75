//! Processes that fall silent: the evaluator waits, up to a limit, for a process that may have received signals, and judges nobody meanwhile.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::judge::reception::Hold;
use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::time::Clock;
use deadbeat_services::Site;
use deadbeat_services::monitor::signal::incoming::Address;
use deadbeat_services::monitor::signal::ingest::Ingest;
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::signal::spool::Spool;
use deadbeat_services::operation::listening::Listening;
use deadbeat_services::operation::selfwatch::{Readiness, Selfwatch};
use deadbeat_services::people::api_key;
use deadbeat_store::{PoolSettings, Store};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::setup::{World, alerted, incoming};

/// A process that receives signals, with a spool in this folder. Its writers do not run; it only stamps that it listens.
fn process(world: &World, folder: &TempDir) -> Listening {
    let spool = Spool::open(&folder.path().join("spool.redb"), 1_000_000).unwrap();
    process_with(world, spool)
}

fn process_with(world: &World, spool: Spool) -> Listening {
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let site = Site {
        url: "https://deadbeat.test".to_owned(),
    };
    let store = Store::connect(&PoolSettings {
        url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
        size: 1,
        wait: Duration::from_millis(1),
        answer: Duration::from_secs(1),
        usual: None,
    })
    .unwrap();
    let (ingest, _) = Ingest::new(
        &store,
        &clock,
        &site,
        &Arc::default(),
        Registry::default(),
        vec![Some(spool)],
    );
    Listening::new(world.store(), clock, ingest).patience(TimeDelta::seconds(60))
}

async fn readiness(world: &World) -> Readiness {
    Selfwatch::default()
        .readiness(&world.store().reader(), world.now())
        .await
}

/// Two processes, and a monitor whose deadline is in 90 s.
async fn two(pool: PgPool) -> (World, [TempDir; 2], Listening, Listening) {
    let world = World::new(pool).await;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (process(&world, &folder), process(&world, &other));
    one.stamp_once().await.unwrap();
    two.stamp_once().await.unwrap();
    (world, [folder, other], one, two)
}

/// For each second, stamps one process and sweeps. Returns how many monitors went down.
async fn seconds(world: &World, count: usize, stamps: &Listening) -> usize {
    let mut down = 0;
    for _ in 0..count {
        world.advance(1);
        stamps.stamp_once().await.unwrap();
        down += world.sweep().await.down;
    }
    down
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_goes_silent_without_signing_off_is_waited_for_up_to_the_limit(pool: PgPool) {
    let (world, _folders, one, two) = two(pool).await;
    let monitor = world.monitor("dead").await;
    world.ping(&monitor, Success).await;
    for _ in 0..60 {
        world.advance(1);
        one.stamp_once().await.unwrap();
        two.stamp_once().await.unwrap();
    }

    // The deadline is 30 s after the last stamp of `two`, which may have received the report.
    assert_eq!(seconds(&world, 59, &one).await, 0);
    let waits = readiness(&world).await;
    let reception = waits.pulse.unwrap().reception;
    assert_eq!(waits.hold(world.now()), Some(Hold::LostListener));
    assert!(
        !waits.is_judging(world.now()),
        "a sweep that may not judge does not count"
    );
    assert_eq!(
        (reception.lost, reception.waits_until),
        (1, Some(world.now() + TimeDelta::seconds(1)))
    );

    assert_eq!(seconds(&world, 1, &one).await, 1, "the limit of 60 s");
    assert_eq!(world.incidents().await, [alerted(monitor.id.0, "MISSED", true)]);
    assert!(readiness(&world).await.is_judging(world.now()));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn silence_is_judged_only_up_to_the_last_report_of_every_process(pool: PgPool) {
    let (world, _folders, one, two) = two(pool).await;
    let monitor = world.monitor("m").await;
    world.ping(&monitor, Success).await;
    for _ in 0..90 {
        world.advance(1);
        one.stamp_once().await.unwrap();
        if world.now() < monitor.created_at + TimeDelta::seconds(90) {
            two.stamp_once().await.unwrap();
        }
    }

    // The deadline is now, and the last stamp of `two` is a second old. `two` may have been cut off since, and may have received the report.
    assert_eq!(world.sweep().await.down, 0);
    two.stamp_once().await.unwrap();
    assert_eq!(world.sweep().await.down, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_signs_off_is_not_waited_for_and_its_last_report_counts(pool: PgPool) {
    let (world, _folders, one, two) = two(pool).await;
    let monitor = world.monitor("dead").await;
    world.ping(&monitor, Success).await;
    two.sign_off().await.unwrap();
    assert_eq!(seconds(&world, 90, &one).await, 1);

    // The last process signs off, too: no process listens.
    one.sign_off().await.unwrap();
    world.advance(3);
    assert_eq!(
        readiness(&world).await.hold(world.now()),
        Some(Hold::NobodyListens)
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_is_started_again_on_its_disk_takes_its_own_report_over(pool: PgPool) {
    let (world, folders, one, two) = two(pool).await;
    assert_eq!(seconds(&world, 10, &one).await, 0);
    let id = two.id();
    // A killed process does not sign off.
    drop(two);
    let elsewhere = tempfile::tempdir().unwrap();
    process(&world, &elsewhere).stamp_once().await.unwrap();
    assert_eq!(
        readiness(&world).await.hold(world.now()),
        Some(Hold::LostListener),
        "a process on another disk changes nothing"
    );

    let again = process(&world, &folders[1]);
    again.stamp_once().await.unwrap();

    assert_eq!(again.id(), id);
    assert_eq!(readiness(&world).await.hold(world.now()), None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_limit_counts_from_when_anybody_listens_again(pool: PgPool) {
    let (world, _folders, one, _two) = two(pool).await;
    let monitor = world.monitor("dead").await;
    world.ping(&monitor, Success).await;
    // The database is unreachable for ten minutes, and `two` dies meanwhile.
    world.advance(600);
    one.stamp_once().await.unwrap();

    assert_eq!(seconds(&world, 59, &one).await, 0);
    assert_eq!(
        readiness(&world).await.hold(world.now()),
        Some(Hold::LostListener)
    );
    assert_eq!(seconds(&world, 1, &one).await, 0);
    assert_eq!(readiness(&world).await.hold(world.now()), None);
    // The slot lies in the blind spell, so the monitor gets a new due time after its end.
    assert_eq!(seconds(&world, 30, &one).await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_comes_back_alone_writes_a_spell_once(pool: PgPool) {
    let (world, _folders, one, two) = two(pool).await;
    let started_at = world.now();
    assert_eq!(seconds(&world, 10, &one).await, 0);

    let spell = two.stamp_once().await.unwrap();
    assert_eq!(
        spell,
        Some(BlindSpell {
            started_at,
            ended_at: world.now()
        })
    );
    assert_eq!(two.stamp_once().await.unwrap(), None);

    // After a time without a listener there is one spell, whichever process comes back.
    world.advance(20);
    assert!(one.stamp_once().await.unwrap().is_some());
    assert_eq!(two.stamp_once().await.unwrap(), None);
    // A process whose silence was given up excuses no monitor.
    assert_eq!(seconds(&world, 61, &one).await, 0);
    assert_eq!(two.stamp_once().await.unwrap(), None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_clock_that_is_stepped_back_makes_nobody_wait_for_longer(pool: PgPool) {
    let (world, _folders, one, _two) = two(pool).await;
    world.advance(-3_600);
    one.stamp_once().await.unwrap();

    let reception = readiness(&world).await.pulse.unwrap().reception;
    assert_eq!(reception.lost, 0);
    assert_eq!(seconds(&world, 61, &one).await, 0);
    assert_eq!(readiness(&world).await.hold(world.now()), None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_signal_that_is_set_aside_holds_the_judgement_of_its_own_monitor_alone(pool: PgPool) {
    let world = World::new(pool).await;
    let key = api_key::issue(&world.services, &world.access, "key", Scope::Ping);
    let (_, key) = key.await.unwrap();
    let (by_id, by_slug) = (world.monitor("by-id").await, world.monitor("by-slug").await);
    let dead = world.monitor("dead").await;
    for monitor in [&by_id, &by_slug, &dead] {
        world.ping(monitor, Success).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool.redb"), 1_000_000).unwrap();
    let process = process_with(&world, spool.clone());
    // The deadline of all monitors is after 90 s.
    assert_eq!(seconds(&world, 85, &process).await, 0);
    let aside = [Address::Ping(by_id.ping_id), Address::slug(&key, "by-slug")]
        .map(|address| incoming(address, world.signal(Success)));
    assert_eq!(spool.append_aside(&aside).await.unwrap(), [true, true]);

    assert_eq!(seconds(&world, 10, &process).await, 1);

    assert_eq!(world.incidents().await, [alerted(dead.id.0, "MISSED", true)]);
    assert_eq!(readiness(&world).await.hold(world.now()), None);
    // Without the signals that are set aside, both monitors go down: nothing else protects them.
    world.advance(1);
    drop((process, spool));
    let process = process_with(
        &world,
        Spool::open(&folder.path().join("other.redb"), 1_000_000).unwrap(),
    );
    process.stamp_once().await.unwrap();
    sqlx::query("DELETE FROM listener WHERE aside <> '{}'")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(world.sweep().await.down, 2);
}
