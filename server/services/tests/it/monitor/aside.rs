//! A signal that cannot be written delays no other. It waits for a moment, is then set aside, and is written once when it can be.

use std::time::Duration;

use deadbeat_domain::ids::PingId;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::IngestError;
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::signal::spool::Spool;
use deadbeat_services::monitor::{self, Change};
use deadbeat_services::people::{api_key, project};
use deadbeat_store::monitor::Monitor;
use deadbeat_testkit::Wire;
use futures::future::join_all;
use sqlx::PgPool;

use crate::monitor::spool::{Folder, away, wait_until, writer};
use crate::monitor::spool_faults::{direct, server, through};
use crate::setup::World;

fn to(world: &World, monitor: &Monitor, body: &str) -> Incoming {
    Incoming {
        body: body.as_bytes().to_vec(),
        ..crate::setup::incoming(Address::Ping(monitor.ping_id), world.signal(Success))
    }
}

/// Returns the bodies of a monitor's pings, in the order of their numbers.
async fn bodies(world: &World, monitor: &Monitor) -> Vec<String> {
    let bodies: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM ping_body WHERE monitor_id = $1 ORDER BY n")
            .bind(monitor.id.0)
            .fetch_all(&world.pool)
            .await
            .unwrap();
    bodies
        .into_iter()
        .map(|body| String::from_utf8(body).unwrap())
        .collect()
}

/// Makes every ping of this monitor take longer than a statement may.
pub async fn make_slow(world: &World, monitor: &Monitor) {
    let trigger = format!(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
        CREATE TRIGGER dawdle BEFORE INSERT ON ping FOR EACH ROW WHEN (NEW.monitor_id = '{}') EXECUTE FUNCTION dawdle()",
        monitor.id.0
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))
        .execute(&world.pool)
        .await
        .unwrap();
}

async fn make_quick(world: &World) {
    sqlx::query("DROP FUNCTION dawdle CASCADE")
        .execute(&world.pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_locked_monitor_holds_nobody_and_its_own_signals_follow_in_order(pool: PgPool) {
    let world = World::new(pool).await;
    let (locked, other) = (world.monitor("locked").await, world.monitor("other").await);
    let folder = Folder::new();
    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM monitor WHERE id = $1 FOR UPDATE")
        .bind(locked.id.0)
        .execute(&mut *holder)
        .await
        .unwrap();

    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let answers = join_all(
        names
            .iter()
            .flat_map(|name| [&locked, &other].map(|monitor| ingest.accept(to(&world, monitor, name)))),
    )
    .await;

    // The lane acknowledges all signals although the row stays locked.
    assert!(answers.iter().all(|answer| *answer == Ok(Accepted::Recorded)));
    assert_eq!(bodies(&world, &other).await, names);
    // The evaluator does not judge the locked monitor for a moment, and no other monitor waits.
    assert_eq!((ingest.aside(), ingest.spooled()), (20, 0));
    assert_eq!(ingest.fresh_aside(), [Address::Ping(locked.ping_id)]);
    let last = ingest.accept(to(&world, &locked, "20")).await;
    holder.rollback().await.unwrap();
    wait_until(async || ingest.aside() == 0).await;

    assert_eq!(last, Ok(Accepted::Recorded));
    let all: Vec<String> = (0..=20).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&world, &locked).await, all);
    // The only row left is the lane's own.
    wait_until(async || world.count("SELECT count(*) FROM writer").await == 1).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn without_a_spool_a_locked_monitor_means_try_again(pool: PgPool) {
    let world = World::new(pool).await;
    let (locked, other) = (world.monitor("locked").await, world.monitor("other").await);
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM monitor WHERE id = $1 FOR UPDATE")
        .bind(locked.id.0)
        .execute(&mut *holder)
        .await
        .unwrap();

    let (refused, taken) = tokio::join!(
        world.accept(Address::Ping(locked.ping_id), Success),
        world.accept(Address::Ping(other.ping_id), Success)
    );

    assert_eq!(refused, Err(IngestError::Unavailable));
    assert_eq!(taken, Ok(Accepted::Recorded));
    holder.rollback().await.unwrap();
    world.ping(&locked, Success).await;
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_signal_that_times_out_is_set_aside_and_neither_holds_the_lane_nor_stops_judging(pool: PgPool) {
    let world = World::new(pool).await;
    let (slow, other) = (world.monitor("slow").await, world.monitor("other").await);
    make_slow(&world, &slow).await;
    let folder = Folder::new();
    let (ingest, _stop) = writer(
        &world,
        direct(&world, Duration::from_millis(300)),
        Registry::default(),
        folder.open(),
    );

    let mut answers = Vec::new();
    for name in ["1", "2"] {
        answers.push(
            join_all([&slow, &other, &slow].map(|monitor| ingest.accept(to(&world, monitor, name)))).await,
        );
    }

    assert!(
        answers
            .iter()
            .flatten()
            .all(|answer| *answer == Ok(Accepted::Recorded))
    );
    assert_eq!(bodies(&world, &other).await, ["1", "2"]);
    assert_eq!((ingest.aside(), ingest.spooled()), (4, 0));
    assert_eq!(ingest.fresh_aside(), [Address::Ping(slow.ping_id)]);
    make_quick(&world).await;
    wait_until(async || ingest.aside() == 0).await;
    assert_eq!(bodies(&world, &slow).await, ["1", "1", "2", "2"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_held_counter_holds_no_other_projects_pings_of_the_same_batch(pool: PgPool) {
    let world = World::new(pool).await;
    let job = world.monitor("job").await;
    world.ping(&job, Success).await;
    let other = project::create(&world.services, "Other", None).await.unwrap();
    let neighbours = Access::new(other.project.id, Actor::Operator);
    let of_a_minute = Change {
        name: Some("neighbour".to_owned()),
        schedule: Some(serde_json::json!({"kind": "interval", "seconds": 60})),
        ..Change::default()
    };
    let neighbour = monitor::create(&world.services, &neighbours, &of_a_minute)
        .await
        .unwrap();
    world.ping(&neighbour, Success).await;
    // A process stopped between its last statement and its commit, and holds its lock.
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query("SELECT last FROM change_counter WHERE project_id = $1 FOR UPDATE")
        .bind(world.project.0)
        .execute(&mut *held)
        .await
        .unwrap();
    let folder = Folder::new();
    let store = direct(&world, Duration::from_millis(300));
    let (ingest, _stop) = writer(&world, store, Registry::default(), folder.open());
    let send = |to: &Monitor, kind| {
        ingest.accept(crate::setup::incoming(
            Address::Ping(to.ping_id),
            world.signal(kind),
        ))
    };

    // Only the failure changes a status, so only the failure needs the counter of changes.
    let answers = join_all([
        send(&neighbour, Success),
        send(&job, Fail),
        send(&neighbour, Success),
    ])
    .await;

    assert!(answers.iter().all(|answer| *answer == Ok(Accepted::Recorded)));
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 4);
    assert_eq!(
        (ingest.aside(), ingest.spooled()),
        (1, 0),
        "the failure is set aside"
    );
    held.rollback().await.unwrap();
    wait_until(async || ingest.aside() == 0).await;
    assert_eq!(world.status(&job).await, Status::Down);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_spooled_signal_that_times_out_lets_the_spool_drain(pool: PgPool) {
    let world = World::new(pool).await;
    let (slow, other) = (world.monitor("slow").await, world.monitor("other").await);
    make_slow(&world, &slow).await;
    let folder = Folder::new();
    {
        let (ingest, _stop) = writer(&world, away(), Registry::default(), folder.open());
        for (monitor, name) in [
            (&slow, "1"),
            (&other, "1"),
            (&slow, "2"),
            (&other, "2"),
            (&slow, "3"),
        ] {
            let answer = ingest.accept(to(&world, monitor, name)).await;
            assert_eq!(answer, Ok(Accepted::Recorded));
        }
    }
    wait_until(async || {
        deadbeat_services::monitor::signal::spool::Spool::open(&folder.file(), 1_000_000).is_ok()
    })
    .await;

    let (ingest, _stop) = writer(
        &world,
        direct(&world, Duration::from_millis(300)),
        Registry::default(),
        folder.open(),
    );
    wait_until(async || bodies(&world, &other).await == ["1", "2"]).await;
    wait_until(async || ingest.aside() == 3).await;
    make_quick(&world).await;
    wait_until(async || ingest.aside() == 0).await;
    assert_eq!(bodies(&world, &slow).await, ["1", "2", "3"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_spooled_signal_for_a_monitor_that_cannot_be_read_is_kept_until_it_can(pool: PgPool) {
    let world = World::new(pool).await;
    let (broken, other) = (world.monitor("broken").await, world.monitor("other").await);
    sqlx::query("UPDATE monitor SET schedule = '{\"kind\": \"of tomorrow\"}' WHERE id = $1")
        .bind(broken.id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let folder = Folder::new();
    {
        let (ingest, _stop) = writer(&world, away(), Registry::default(), folder.open());
        for monitor in [&broken, &other] {
            let answer = ingest.accept(to(&world, monitor, "spooled")).await;
            assert_eq!(answer, Ok(Accepted::Recorded));
        }
    }
    wait_until(async || {
        deadbeat_services::monitor::signal::spool::Spool::open(&folder.file(), 1_000_000).is_ok()
    })
    .await;

    let (ingest, stop) = writer(&world, world.store(), Registry::default(), folder.open());
    wait_until(async || bodies(&world, &other).await == ["spooled"]).await;
    assert_eq!(ingest.aside(), 1);
    // The signal that was set aside survives a restart.
    drop((ingest, stop));
    wait_until(async || {
        deadbeat_services::monitor::signal::spool::Spool::open(&folder.file(), 1_000_000).is_ok()
    })
    .await;
    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    assert_eq!(ingest.aside(), 1);

    sqlx::query("UPDATE monitor SET schedule = (SELECT schedule FROM monitor WHERE id = $2) WHERE id = $1")
        .bind(broken.id.0)
        .bind(other.id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    wait_until(async || ingest.aside() == 0).await;
    assert_eq!(bodies(&world, &broken).await, ["spooled"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_set_aside_of_one_address_has_a_limit_and_then_says_try_again(pool: PgPool) {
    let world = World::new(pool).await;
    let locked = world.monitor("locked").await;
    let folder = Folder::new();
    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM monitor WHERE id = $1 FOR UPDATE")
        .bind(locked.id.0)
        .execute(&mut *holder)
        .await
        .unwrap();

    let mut taken = 0;
    for _ in 0..3 {
        let answers = join_all((0..300).map(|_| ingest.accept(to(&world, &locked, "x")))).await;
        taken += answers.iter().filter(|answer| answer.is_ok()).count();
    }

    assert_eq!((taken, ingest.aside()), (500, 500));
    let one_more = ingest.accept(to(&world, &locked, "x")).await;
    assert_eq!(one_more, Err(IngestError::Unavailable));
    holder.rollback().await.unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_address_at_its_limit_does_not_refuse_what_comes_beside_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (full, other) = (world.monitor("full").await, world.monitor("other").await);
    let folder = Folder::new();
    let spool = Spool::open(&folder.file(), 100_000_000).unwrap();
    let of = |monitor: &Monitor, count: usize| vec![to(&world, monitor, "x"); count];
    let batch = [of(&full, 501), of(&other, 1), of(&full, 1)].concat();

    let kept = spool.append_aside(&batch).await.unwrap();

    assert_eq!(kept, [vec![true; 500], vec![false, true, false]].concat());
    assert_eq!(spool.aside(), 501);
    // The limit for all signals that are set aside together.
    let many: Vec<Incoming> = (0..9_500)
        .map(|_| crate::setup::incoming(Address::Ping(PingId::generate()), world.signal(Success)))
        .collect();
    let kept = spool.append_aside(&many).await.unwrap();
    assert_eq!(kept, [vec![true; 9_499], vec![false]].concat());
    assert_eq!(spool.append_aside(&of(&other, 1)).await.unwrap(), [false]);
    // The file contains the same number after it is opened again.
    drop(spool);
    assert_eq!(Spool::open(&folder.file(), 100_000_000).unwrap().aside(), 10_000);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_key_whose_row_is_locked_holds_no_signal(pool: PgPool) {
    let world = World::new(pool).await;
    world.monitor("by-slug").await;
    let issued = api_key::issue(&world.services, &world.access, "key", Scope::Ping);
    let (_, key) = issued.await.unwrap();
    let folder = Folder::new();
    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM api_key FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();

    let signal = || crate::setup::incoming(Address::slug(&key, "by-slug"), world.signal(Success));
    let answers = [ingest.accept(signal()).await, ingest.accept(signal()).await];

    assert_eq!(answers, [Ok(Accepted::Recorded); 2]);
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 2);
    assert_eq!((ingest.aside(), ingest.spooled()), (0, 0));
    holder.rollback().await.unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn failures_of_a_monitor_that_is_down_share_their_statements(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("down").await;
    world.ping(&monitor, Fail).await;
    let wire = Wire::before(server(&world), None).await;
    let folder = Folder::new();
    let (ingest, _stop) = writer(&world, through(&world, &wire), Registry::default(), folder.open());
    let fail = || crate::setup::incoming(Address::Ping(monitor.ping_id), world.signal(Fail));

    let answers = join_all((0..512).map(|_| ingest.accept(fail()))).await;

    assert!(answers.iter().all(|answer| *answer == Ok(Accepted::Recorded)));
    // A batch takes one or two dozen statements. The number of batches for the 512 signals depends on their arrival times.
    let batches = ingest
        .figures()
        .batches
        .load(std::sync::atomic::Ordering::Relaxed) as usize;
    assert!(
        wire.statements() <= 25 * batches,
        "{} statements in {batches} batches",
        wire.statements()
    );
    assert_eq!(world.status(&monitor).await, Status::Down);
    assert_eq!(world.count("SELECT count(*) FROM incident").await, 1);
}
