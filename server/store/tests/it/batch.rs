//! The statement that writes a batch.

use chrono::{DateTime, Utc};
use deadbeat_domain::monitor::ping::PingKind::{Log, Start, Success};
use deadbeat_domain::monitor::run::orphan::Orphaned;
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::on_ping;
use deadbeat_store::celery::worker::orphan;
use deadbeat_store::monitor;
use deadbeat_store::monitor::batch::{self, Batch};
use deadbeat_store::monitor::{Monitor, Stateful, ping, run};
use deadbeat_store::page::Page;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::setup::{World, at, new_ping, signal};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_pings_update_touches_no_index(options: PgPoolOptions, database: PgConnectOptions) {
    // One connection counts all updates, and reports the counts on request.
    let world = World::new(options.max_connections(1).connect_with(database).await.unwrap()).await;
    let monitor = world.monitor("m").await;
    for number in 1..=200 {
        world.ping(&monitor, Success, number * 30).await;
    }

    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(&world.pool)
        .await
        .unwrap();
    let (updates, hot): (i64, i64) =
        sqlx::query_as("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'monitor'")
            .fetch_one(&world.pool)
            .await
            .unwrap();

    assert_eq!(updates, 200);
    assert!(hot * 100 > updates * 95, "{hot} of {updates} were HOT");
    let check = world
        .count("SELECT extract(epoch FROM min(check_after))::bigint FROM monitor")
        .await;
    assert_eq!(
        check,
        at(90).timestamp(),
        "pings do not move the check; the sweep does"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_written_is_read_back_as_it_was(pool: PgPool) {
    let world = World::new(pool).await;
    let mut monitor = world.monitor("m").await;
    let _ = on_ping(&mut monitor.state, &signal(Start, 30));
    monitor.open_runs = 1;
    let mut stored = new_ping(&monitor, Start, 30);
    stored.body = &[0, 159, 146, 150];
    stored.exit_code = Some(255);
    let runs = monitor
        .state
        .runs
        .iter()
        .map(|run| (monitor.key(), run.clone()))
        .collect();
    let batch = Batch {
        pings: vec![stored],
        runs,
        monitors: vec![monitor.changed()],
        moves_check: true,
        writer: None,
    };
    let mut tx = world.begin().await;
    batch::write(&mut tx, &batch).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = world.begin().await;
    let mut read = vec![
        monitor::lock(&mut tx, world.project, monitor.id)
            .await
            .unwrap()
            .unwrap(),
    ];
    run::load_into(&mut tx, &mut read, &[]).await.unwrap();
    let reader = world.store.reader();
    let pings = ping::list(
        &reader,
        world.project,
        monitor.id,
        Page {
            after: None,
            limit: 10,
        },
    )
    .await
    .unwrap();

    assert_eq!(read, [monitor.clone()]);
    assert_eq!(
        pings
            .iter()
            .map(|p| (p.n, p.kind, p.exit_code, p.body_bytes))
            .collect::<Vec<_>>(),
        [(1, Start, Some(255), 4)]
    );
    let body = ping::body(&reader, world.project, monitor.id, 1).await.unwrap();
    assert_eq!(body, Some(vec![0, 159, 146, 150]));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn check_after_moves_earlier_when_it_must_and_later_only_by_the_sweep(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let check = async || {
        let check: i64 = world
            .count("SELECT extract(epoch FROM check_after)::bigint FROM monitor")
            .await;
        check - at(0).timestamp()
    };

    world.ping(&monitor, Log, 10).await;
    assert_eq!(check().await, 90);
    world.ping(&monitor, Start, 20).await;
    assert_eq!(check().await, 50, "the run must end by then");
    world.ping(&monitor, Success, 40).await;
    assert_eq!(
        check().await,
        50,
        "one needless check costs less than an index update for each ping"
    );
    let mut tx = world.begin().await;
    let claimed = monitor::claim_overdue(&mut tx, at(50), 10).await.unwrap();
    let monitors: Vec<Monitor> = claimed.into_iter().map(Result::unwrap).collect();
    batch::write(
        &mut tx,
        &Batch {
            monitors: monitors.iter().map(Stateful::changed).collect(),
            moves_check: true,
            writer: None,
            ..Batch::default()
        },
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();

    assert_eq!(check().await, 130);
    let read = monitor::get(&world.store.reader(), world.project, monitor.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((read.state.status, read.state.ping_count), (Status::Up, 3));
}

impl World {
    /// Writes the state of a monitor and its runs, as a sweep does.
    async fn sweep(&self, monitor: &Monitor) {
        let mut tx = self.begin().await;
        let runs = monitor.state.runs.iter();
        let batch = Batch {
            runs: runs.map(|run| (monitor.key(), run.clone())).collect(),
            monitors: vec![monitor.changed()],
            moves_check: true,
            ..Batch::default()
        };
        batch::write(&mut tx, &batch).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn claims(&self, seconds: i64) -> Vec<Monitor> {
        let mut tx = self.begin().await;
        let claimed = monitor::claim_overdue(&mut tx, at(seconds), 10).await.unwrap();
        claimed.into_iter().map(Result::unwrap).collect()
    }

    /// Returns `check_after`, `deadline_at` and `hold_until` of the only monitor, in seconds.
    async fn armed(&self) -> [Option<i64>; 3] {
        type Instant = Option<DateTime<Utc>>;
        let instants: (Instant, Instant, Instant) =
            sqlx::query_as("SELECT check_after, deadline_at, hold_until FROM monitor")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        [instants.0, instants.1, instants.2].map(|one| one.map(|one| (one - at(0)).num_seconds()))
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_hold_moves_the_judgement_and_not_the_deadline_and_a_ping_ends_it(pool: PgPool) {
    let world = World::new(pool).await;
    let mut monitor = world.monitor("m").await;
    monitor.state.hold_until = Some(at(200));

    world.sweep(&monitor).await;

    assert_eq!(world.armed().await, [Some(200), Some(90), Some(200)]);
    assert!(world.claims(199).await.is_empty());
    assert_eq!(world.claims(200).await[0].state, monitor.state);
    world.ping(&monitor, Success, 100).await;
    assert_eq!(
        world.armed().await,
        [Some(190), Some(190), None],
        "the next slot is at 160"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_run_whose_owner_ended_is_judged_at_once_although_its_monitor_is_held(pool: PgPool) {
    let world = World::new(pool).await;
    let mut monitor = world.monitor("m").await;
    let _ = on_ping(&mut monitor.state, &signal(Start, 20));
    let owner = Uuid::from_u128(1);
    monitor.state.runs[0].detail.incarnation = Some(owner);
    monitor.state.runs[0].ended_at = Some(at(45));
    monitor.state.hold_until = Some(at(200));
    world.sweep(&monitor).await;
    assert_eq!(world.armed().await, [Some(200), Some(50), Some(200)]);

    let mut tx = world.begin().await;
    let ended = [(world.project, owner, Orphaned::Ended)];
    orphan::mark_ended(&mut tx, &ended, &[monitor.key()], at(60))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    assert_eq!(world.armed().await, [Some(60), Some(50), Some(60)]);
    let mut claimed = world.claims(60).await;
    let mut tx = world.begin().await;
    run::load_into(&mut tx, &mut claimed, &[]).await.unwrap();
    assert_eq!(claimed[0].state.runs[0].ended_at, Some(at(45)));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_hold_that_outlived_its_deadline_is_dropped_and_claims_nobody_for_ever(pool: PgPool) {
    let world = World::new(pool).await;
    let mut monitor = world.monitor("m").await;
    monitor.state.hold_until = Some(at(200));
    world.sweep(&monitor).await;
    // The last release pauses the monitor. It does not know the hold, and leaves it in the row.
    sqlx::query("UPDATE monitor SET status = 'paused', deadline_at = NULL")
        .execute(&world.pool)
        .await
        .unwrap();

    let claimed = world.claims(200).await;
    assert_eq!(claimed[0].state.judged_at(), None);
    world.sweep(&claimed[0]).await;

    assert_eq!(world.armed().await, [None, None, None]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_last_release_reads_and_writes_a_held_monitor_as_its_own(pool: PgPool) {
    let world = World::new(pool).await;
    let mut monitor = world.monitor("m").await;
    monitor.state.hold_until = Some(at(200));
    world.sweep(&monitor).await;
    let last_release = async |deadline: i64, moves_check: bool| {
        sqlx::query(
            "UPDATE monitor SET deadline_at = $1, check_after = CASE WHEN $2 THEN $1 ELSE least(check_after, $1) END",
        )
        .bind(at(deadline))
        .bind(moves_check)
        .execute(&world.pool)
        .await
        .unwrap();
    };

    // A ping of the last release moves the deadline. Its sweep then holds the monitor, which moves the deadline again.
    last_release(160, false).await;
    assert_eq!(world.armed().await, [Some(160), Some(160), Some(200)]);
    last_release(250, true).await;

    assert_eq!(world.claims(250).await[0].state.judged_at(), Some(at(250)));
}
