//! Proof that the server records each acknowledged signal once. The tests break every statement between the writers and the database, one after
//! the other: in replays, in the writers, and in the loops that retry signals one by one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::monitor::ping::PingKind::{self, Fail, Start, Success};
use deadbeat_domain::monitor::ping::Signal;
use deadbeat_services::monitor::signal::incoming::{Accepted, Address, Incoming};
use deadbeat_services::monitor::signal::ingest::Ingest;
use deadbeat_services::monitor::signal::registry::Registry;
use deadbeat_store::monitor::Monitor;
use deadbeat_store::{PoolSettings, Store};
use deadbeat_testkit::wire::Server;
use deadbeat_testkit::{Fault, Wire};
use futures::future::join_all;
use sqlx::PgPool;
use uuid::Uuid;

use crate::monitor::spool::{Folder, away, writer};
use crate::setup::World;

/// Scenarios that run at the same time. Each one spends most of its time waiting.
const AT_ONCE: usize = 40;

/// The monitors of one scenario.
struct Cast {
    /// Has no fault.
    well: Monitor,
    /// Fails repeatedly.
    failing: Monitor,
    /// Changes between success and failure, so that the order of its signals decides its status.
    changing: Monitor,
    /// A row with its first ping's number exists. Its signals cannot be written, and their batch fails.
    bad: Monitor,
}

/// The result of a scenario: for each monitor its status, its incidents and its runs.
type End = Vec<(String, i64, i64, i64)>;

pub fn server(world: &World) -> Server {
    let options = world.pool.connect_options();
    match options.get_socket() {
        Some(folder) => Server::Socket(folder.join(format!(".s.PGSQL.{}", options.get_port()))),
        None => Server::Port(options.get_host().to_owned(), options.get_port()),
    }
}

/// A store whose connections all go through the proxy.
pub fn through(world: &World, wire: &Wire) -> Store {
    let options = world.pool.connect_options();
    let database = options.get_database().unwrap();
    let user = options.get_username();
    Store::connect(&PoolSettings {
        url: format!(
            "postgres://{user}@127.0.0.1:{}/{database}?sslmode=disable",
            wire.port()
        ),
        size: 2,
        wait: Duration::from_secs(5),
        answer: Duration::from_secs(10),
        usual: None,
    })
    .unwrap()
}

/// A separate store with direct connections.
pub fn direct(world: &World, answer: Duration) -> Store {
    let options = world.pool.connect_options();
    let (database, user) = (options.get_database().unwrap(), options.get_username());
    let host = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => options.get_host().to_owned(),
    };
    Store::connect(&PoolSettings {
        url: format!(
            "postgres://{user}@localhost:{}/{database}?host={host}",
            options.get_port()
        ),
        size: 2,
        wait: Duration::from_secs(5),
        answer,
        usual: None,
    })
    .unwrap()
}

/// Waits for an event. The limit is long because many scenarios share the machine.
pub async fn settled(what: impl AsyncFn() -> bool) {
    tokio::time::timeout(Duration::from_secs(180), async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the event comes within three minutes");
}

/// Sends signals at once, each with a unique body. Returns the acknowledged ones.
async fn send(
    world: &World,
    ingest: &Ingest,
    name: &str,
    signals: &[(&Monitor, PingKind, Option<u128>)],
) -> Vec<(MonitorId, String)> {
    let sent = signals.iter().enumerate().map(|(index, (to, kind, run))| {
        let body = format!("{name} {index}");
        let incoming = Incoming {
            address: Address::Ping(to.ping_id),
            signal: Signal {
                run_id: run.map(Uuid::from_u128),
                ..world.signal(*kind)
            },
            method: None,
            remote_addr: None,
            user_agent: None,
            body: body.clone().into_bytes(),
        };
        async move { (ingest.accept(incoming).await, (to.id, body)) }
    });
    let answers = join_all(sent).await;
    answers
        .into_iter()
        .filter(|(answer, _)| *answer == Ok(Accepted::Recorded))
        .map(|(_, one)| one)
        .collect()
}

impl Cast {
    async fn new(world: &World, name: &str) -> Self {
        let bad = world.monitor(&format!("bad {name}")).await;
        sqlx::query("INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes) VALUES ($1, 1, $2, 'log', 'http', 0)")
            .bind(bad.id.0)
            .bind(world.now())
            .execute(&world.pool)
            .await
            .unwrap();
        Self {
            well: world.monitor(&format!("well {name}")).await,
            failing: world.monitor(&format!("failing {name}")).await,
            changing: world.monitor(&format!("changing {name}")).await,
            bad,
        }
    }

    fn all(&self) -> [&Monitor; 4] {
        [&self.well, &self.failing, &self.changing, &self.bad]
    }

    async fn end(&self, world: &World) -> End {
        let mut end = Vec::new();
        for monitor in self.all() {
            let row = sqlx::query_as(
                "SELECT status, (SELECT count(*) FROM incident WHERE subject_id = monitor.id),
                    (SELECT count(*) FROM incident WHERE subject_id = monitor.id AND resolved_at IS NULL),
                    (SELECT count(*) FROM run WHERE monitor_id = monitor.id)
                FROM monitor WHERE id = $1",
            )
            .bind(monitor.id.0)
            .fetch_one(&world.pool)
            .await
            .unwrap();
            end.push(row);
        }
        end
    }
}

/// Spools, replays and receives signals, and breaks one statement meanwhile. Returns the result, and whether the fault occurred.
async fn play(world: &World, processes: usize, fault: Option<(usize, Fault)>) -> (End, bool) {
    let about = format!("{processes} {fault:?}");
    let cast = Cast::new(world, &about).await;
    let Cast {
        well,
        failing,
        changing,
        bad,
    } = &cast;
    let mut acknowledged = Vec::new();

    // The database is unreachable, and each process has a spool.
    let folders: Vec<Folder> = (0..processes).map(|_| Folder::new()).collect();
    for (process, folder) in folders.iter().enumerate() {
        let (ingest, _stop) = writer(world, away(), Registry::default(), folder.open());
        let signals: &[_] = if process == 0 {
            &[
                (changing, Fail, None),
                (bad, Success, None),
                (changing, Start, Some(2)),
                (well, Success, Some(1)),
            ]
        } else {
            &[(well, Success, None), (failing, Fail, None)]
        };
        acknowledged.extend(send(world, &ingest, &format!("spooled {process}"), signals).await);
    }
    // Each process releases its file some time after its end.
    for folder in &folders {
        settled(async || {
            deadbeat_services::monitor::signal::spool::Spool::open(&folder.file(), 1_000_000).is_ok()
        })
        .await;
    }
    assert_eq!(acknowledged.len(), 4 + 2 * (processes - 1), "{about}");

    // The database is reachable again, and one statement of the first process breaks.
    let wire = Wire::before(server(world), fault).await;
    let spools: Vec<_> = folders.iter().map(Folder::open).collect();
    let running: Vec<_> = spools
        .iter()
        .enumerate()
        .map(|(process, spool)| {
            let store = if process == 0 {
                through(world, &wire)
            } else {
                direct(world, Duration::from_secs(10))
            };
            writer(world, store, Registry::default(), spool.clone())
        })
        .collect();
    settled(async || spools.iter().all(|spool| spool.signals() == 0)).await;
    for (process, (ingest, _)) in running.iter().enumerate() {
        let signals: &[_] = if process == 0 {
            &[
                (changing, Success, Some(2)),
                (bad, Success, None),
                (failing, Fail, None),
                (changing, Fail, None),
            ]
        } else {
            &[(well, Success, None), (failing, Fail, None)]
        };
        acknowledged.extend(send(world, ingest, &format!("live {process}"), signals).await);
    }
    // The bad monitor is repaired, and the signals that were set aside follow.
    sqlx::query("DELETE FROM ping WHERE monitor_id = $1 AND body_bytes = 0")
        .bind(bad.id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    settled(async || {
        spools
            .iter()
            .all(|spool| spool.signals() == 0 && spool.aside() == 0)
    })
    .await;

    let ids: Vec<Uuid> = cast.all().map(|monitor| monitor.id.0).into();
    let recorded: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT monitor_id, body FROM ping_body WHERE monitor_id = ANY($1)")
            .bind(&ids)
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let mut times: BTreeMap<(Uuid, String), usize> = BTreeMap::new();
    for (id, body) in recorded {
        *times.entry((id, String::from_utf8(body).unwrap())).or_default() += 1;
    }
    for (monitor, body) in &acknowledged {
        let found = times.get(&(monitor.0, body.clone())).copied();
        assert_eq!(found, Some(1), "{about}: \"{body}\" was acknowledged");
    }
    assert!(times.values().all(|times| *times == 1), "{about}: {times:?}");
    let numbered: i64 = sqlx::query_scalar("SELECT sum(ping_count)::bigint FROM monitor WHERE id = ANY($1)")
        .bind(&ids)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(numbered).unwrap(), times.len(), "{about}");
    (cast.end(world).await, wire.was_hit())
}

/// Breaks every statement in every way, until a scenario ends before its fault occurs.
async fn prove(pool: PgPool, processes: usize) {
    let world = World::new(pool).await;
    let (expected, _) = play(&world, processes, None).await;
    let broken: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    let next = AtomicUsize::new(0);
    // For each fault, the number of the statement at which a scenario ended before the fault.
    let ends = Fault::ALL.map(|_| AtomicUsize::new(usize::MAX));
    let worker = async || {
        loop {
            let turn = next.fetch_add(1, Ordering::SeqCst);
            let (number, place) = (turn / Fault::ALL.len() + 1, turn % Fault::ALL.len());
            if ends.iter().all(|end| end.load(Ordering::SeqCst) <= number) {
                return;
            }
            if ends[place].load(Ordering::SeqCst) <= number {
                continue;
            }
            let fault = Fault::ALL[place];
            let (end, was_hit) = play(&world, processes, Some((number, fault))).await;
            assert_eq!(
                end, expected,
                "{processes} processes, {fault:?} at statement {number}"
            );
            if was_hit {
                *broken.lock().unwrap().entry(fault.name()).or_default() += 1;
            } else {
                ends[place].fetch_min(number, Ordering::SeqCst);
            }
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    let broken = broken.into_inner().unwrap();
    println!("{processes} processes, statements broken: {broken:?}");
    assert!(
        broken.len() == Fault::ALL.len() && broken.values().all(|count| *count > 40),
        "{broken:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_process_a_fault_at_every_statement_loses_nothing_and_doubles_nothing(pool: PgPool) {
    prove(pool, 1).await;
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_processes_a_fault_at_every_statement_loses_nothing_and_doubles_nothing(pool: PgPool) {
    prove(pool, 2).await;
}
