//! While the database is unreachable, the spool keeps acknowledged signals, and then replays them in order, once.

mod file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadbeat_domain::ids::PingId;
use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::time::Clock;
use deadbeat_services::Site;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::{Ingest, IngestError};
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_services::monitor::signal::spool::Spool;
use deadbeat_store::{PoolSettings, Store};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::setup::World;

fn incoming(world: &World, address: Address, body: &str) -> Incoming {
    Incoming {
        address,
        signal: world.signal(Success),
        method: Some("POST".to_owned()),
        remote_addr: Some("203.0.113.7".to_owned()),
        user_agent: Some("curl".to_owned()),
        body: body.as_bytes().to_vec(),
    }
}

/// Starts a writer on a store, with a spool.
pub fn writer(world: &World, store: Store, registry: Registry, spool: Spool) -> (Ingest, DropGuard) {
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let site = Site {
        url: "https://deadbeat.test".to_owned(),
    };
    let bell = Arc::new(Notify::new());
    let (ingest, writers) = Ingest::new(&store, &clock, &site, &bell, registry, vec![Some(spool)]);
    let stop = CancellationToken::new();
    tokio::spawn(writers.run(stop.clone()));
    (ingest, stop.drop_guard())
}

/// A store whose database is never reachable.
pub fn away() -> Store {
    Store::connect(&PoolSettings {
        url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
        size: 1,
        wait: Duration::from_millis(200),
        answer: Duration::from_secs(30),
        usual: None,
    })
    .unwrap()
}

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        // The folder is in memory where the machine allows this: these tests are not about the disk.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self(folder.unwrap())
    }

    pub fn file(&self) -> PathBuf {
        self.0.path().join("spool.redb")
    }

    pub fn open(&self) -> Spool {
        Spool::open(&self.file(), 1_000_000).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A signal to an address that does not exist.
fn lone(body: &str) -> Incoming {
    Incoming {
        address: Address::Ping(PingId::generate()),
        signal: deadbeat_domain::monitor::ping::Signal {
            kind: Success,
            received_at: chrono::DateTime::UNIX_EPOCH,
            occurred_at: chrono::DateTime::UNIX_EPOCH,
            run_id: Some(uuid::Uuid::nil()),
            exit_code: Some(0),
            duration: Some(chrono::TimeDelta::milliseconds(1_500)),
            source: deadbeat_domain::monitor::ping::Source::Event,
            detail: deadbeat_domain::monitor::ping::SignalDetail::default(),
            is_replayed: false,
        },
        method: None,
        remote_addr: None,
        user_agent: None,
        body: body.as_bytes().to_vec(),
    }
}

async fn bodies(spool: &Spool) -> Vec<String> {
    let kept = spool.oldest(1_000).await.unwrap();
    kept.into_iter()
        .map(|one| String::from_utf8(one.incoming.body).unwrap())
        .collect()
}

pub async fn wait_until(what: impl AsyncFn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the event comes within twenty seconds");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_was_spooled_is_replayed_in_order_with_its_own_times_by_the_next_process(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    let to = Address::Ping(monitor.ping_id);
    {
        let (ingest, _stop) = writer(&world, away(), Registry::default(), folder.open());
        for n in 0..30 {
            let answer = ingest
                .accept(incoming(&world, to.clone(), &format!("body {n}")))
                .await;
            assert_eq!(answer, Ok(Accepted::Recorded));
            world.advance(1);
        }
        assert_eq!(ingest.spooled(), 30);
        assert_eq!(world.count("SELECT count(*) FROM ping").await, 0);
    }
    // The old process releases the file some time after its end.
    wait_until(async || Spool::open(&folder.file(), 1_000_000).is_ok()).await;

    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    wait_until(async || ingest.spooled() == 0).await;

    let rows: Vec<(i64, Vec<u8>, bool)> = sqlx::query_as(
        "SELECT n, body, received_at = $1 + make_interval(secs => n - 1) FROM ping JOIN ping_body USING (monitor_id, n, received_at) ORDER BY n",
    )
    .bind(world.now() - chrono::TimeDelta::seconds(30))
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let expected: Vec<(i64, Vec<u8>, bool)> = (0..30)
        .map(|n| (n + 1, format!("body {n}").into_bytes(), true))
        .collect();
    assert_eq!(rows, expected);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_batch_whose_commit_was_only_not_acknowledged_is_not_written_twice(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    let spool = folder.open();
    let signals: Vec<Incoming> = (0..3)
        .map(|n| incoming(&world, Address::Ping(monitor.ping_id), &n.to_string()))
        .collect();
    // The answer to a commit was lost: the first two signals are in the database, and in the spool, too.
    spool.append(7..=8, &signals[..2]).await.unwrap();
    spool.append(9..=9, &signals[2..]).await.unwrap();
    sqlx::query("INSERT INTO writer (id, position) VALUES ($1, 8)")
        .bind(spool.writer())
        .execute(&world.pool)
        .await
        .unwrap();

    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), spool);
    wait_until(async || ingest.spooled() == 0).await;

    let bodies: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM ping_body ORDER BY n")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(bodies, [b"2"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn numbers_that_the_database_may_have_are_not_given_again_after_a_restart(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    let to = |body: &str| incoming(&world, Address::Ping(monitor.ping_id), body);
    {
        // The answer to a commit of five signals was lost, and three of them had no monitor.
        let spool = folder.open();
        spool.append(1..=5, &[to("1"), to("2")]).await.unwrap();
        sqlx::query("INSERT INTO writer (id, position) VALUES ($1, 5)")
            .bind(spool.writer())
            .execute(&world.pool)
            .await
            .unwrap();
    }
    {
        let (ingest, _stop) = writer(&world, away(), Registry::default(), folder.open());
        for body in ["3", "4", "5"] {
            assert_eq!(ingest.accept(to(body)).await, Ok(Accepted::Recorded));
        }
    }
    wait_until(async || Spool::open(&folder.file(), 1_000_000).is_ok()).await;

    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    wait_until(async || ingest.spooled() == 0).await;

    let bodies: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM ping_body ORDER BY n")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(bodies, [b"3", b"4", b"5"]);
}

#[tokio::test]
async fn a_number_stays_given_when_its_signal_leaves_the_order_and_a_new_name_begins_anew() {
    let folder = Folder::new();
    let name = {
        let spool = folder.open();
        spool
            .append(1..=3, &[lone("1"), lone("2"), lone("3")])
            .await
            .unwrap();
        let last = spool.oldest(10).await.unwrap().pop().unwrap();
        spool.set_aside(&[&last]).await.unwrap();
        spool.writer()
    };
    let spool = folder.open();
    assert_eq!(
        (spool.writer(), spool.last_position().await.unwrap()),
        (name, Some(3))
    );
    spool.forget(3).await.unwrap();
    drop(spool);

    let spool = folder.open();
    assert_ne!(spool.writer(), name);
    assert_eq!(spool.last_position().await.unwrap(), None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_commit_that_is_still_under_way_is_waited_for_and_not_replayed(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    let spool = folder.open();
    for n in 7..=8 {
        let signal = incoming(&world, Address::Ping(monitor.ping_id), &n.to_string());
        spool.append(n..=n, &[signal]).await.unwrap();
    }
    // The connection broke after COMMIT was sent. PostgreSQL is still committing the first transaction of this writer.
    let mut under_way = world.pool.begin().await.unwrap();
    sqlx::query("INSERT INTO writer (id, position) VALUES ($1, 7)")
        .bind(spool.writer())
        .execute(&mut *under_way)
        .await
        .unwrap();

    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), spool);
    wait_until(async || {
        world
            .count("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .await
            > 0
    })
    .await;
    under_way.commit().await.unwrap();
    wait_until(async || ingest.spooled() == 0).await;

    let bodies: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM ping_body ORDER BY n")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(bodies, [b"8"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn without_the_database_known_ids_are_taken_denied_ones_refused_and_others_trusted(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    let registry = Registry::default();
    let stop = CancellationToken::new();
    let (follower, store, stopped) = (registry.clone(), world.store(), stop.clone());
    let following = tokio::spawn(async move { follower.run(&store, stopped).await });
    let (ping, stranger) = (monitor.ping_id, PingId::generate());
    wait_until(async || registry.len() == 1).await;

    let (ingest, _stop) = writer(&world, away(), registry.clone(), folder.open());
    let known = ingest.accept(incoming(&world, Address::Ping(ping), "")).await;
    let unknown = ingest.accept(incoming(&world, Address::Ping(stranger), "")).await;
    // The connection to the database breaks. A ping id that is not in the registry may be new.
    stop.cancel();
    following.await.unwrap();
    let perhaps = ingest.accept(incoming(&world, Address::Ping(stranger), "")).await;

    assert_eq!(known, Ok(Accepted::Recorded));
    assert_eq!(unknown, Ok(Accepted::Unknown { access: None }));
    assert_eq!(perhaps, Ok(Accepted::Recorded));
    assert_eq!(ingest.spooled(), 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_full_spool_says_try_again_and_keeps_what_it_has(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    // Each signal takes about 1,000 bytes.
    let spool = Spool::open(&folder.file(), 2_500).unwrap();
    let (ingest, _stop) = writer(&world, away(), Registry::default(), spool.clone());
    let send = || ingest.accept(incoming(&world, Address::Ping(monitor.ping_id), &"x".repeat(500)));

    assert_eq!(send().await, Ok(Accepted::Recorded));
    assert_eq!(send().await, Ok(Accepted::Recorded));
    assert_eq!(send().await, Err(IngestError::Unavailable));

    assert_eq!(spool.signals(), 2);
    assert_eq!(spool.oldest(10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn signals_come_back_oldest_first_each_with_a_number_of_its_own() {
    let folder = Folder::new();
    let spool = folder.open();
    let one = || Incoming {
        body: vec![0, 255],
        ..lone("")
    };
    let batches: Vec<Vec<Incoming>> = [3, 1, 4].map(|count| (0..count).map(|_| one()).collect()).into();
    for (first, batch) in [10, 13, 14].into_iter().zip(&batches) {
        spool
            .append(first..=first + batch.len() as u64 - 1, batch)
            .await
            .unwrap();
    }

    let numbers = |spooled: Vec<deadbeat_services::monitor::signal::spool::Spooled>| -> Vec<u64> {
        spooled.iter().map(|one| one.position).collect()
    };
    let first = spool.oldest(5).await.unwrap();
    let replayed = deadbeat_domain::monitor::ping::Signal {
        is_replayed: true,
        ..batches[0][0].signal.clone()
    };
    assert_eq!(first[0].incoming.signal, replayed);
    assert_eq!(first[0].incoming.body, [0, 255]);
    assert_eq!(numbers(first), [10, 11, 12, 13, 14]);
    spool.forget(13).await.unwrap();
    assert_eq!(numbers(spool.oldest(100).await.unwrap()), [14, 15, 16, 17]);
    assert_eq!(
        (spool.signals(), spool.last_position().await.unwrap()),
        (4, Some(17))
    );
    spool.forget(17).await.unwrap();
    assert_eq!((spool.signals(), spool.bytes()), (0, 0));
}

/// Delays the first transaction of the writers by two seconds.
async fn hold_up(pool: &PgPool, trigger: &str) {
    let sql = format!(
        "CREATE SEQUENCE held;
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('held') = 1 THEN PERFORM pg_sleep(2); END IF;
            RETURN NULL;
        END $$;
        {trigger}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await
        .unwrap();
}

async fn is_spooled_and_written_once(pool: PgPool, trigger: &str) {
    hold_up(&pool, trigger).await;
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let folder = Folder::new();
    let (ingest, _stop) = writer(&world, world.store(), Registry::default(), folder.open());
    let ping = incoming(&world, Address::Ping(monitor.ping_id), "slow");

    assert_eq!(ingest.accept(ping).await, Ok(Accepted::Recorded));

    let spooled = ingest
        .figures()
        .spooled
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(spooled, 1, "its client did not wait for the database");
    wait_until(async || ingest.spooled() == 0).await;
    assert_eq!(world.count("SELECT count(*) FROM ping").await, 1);
    assert_eq!(world.read(monitor.id).await.state.ping_count, 1, "written once");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_batch_whose_statement_takes_longer_than_a_second_is_spooled(pool: PgPool) {
    let in_the_statement = "CREATE TRIGGER hold AFTER INSERT ON ping EXECUTE FUNCTION hold();";
    is_spooled_and_written_once(pool, in_the_statement).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_batch_whose_commit_takes_longer_than_a_second_is_spooled_and_found_committed(pool: PgPool) {
    let at_the_commit = "CREATE CONSTRAINT TRIGGER hold AFTER INSERT OR UPDATE ON writer
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold();";
    is_spooled_and_written_once(pool, at_the_commit).await;
}
