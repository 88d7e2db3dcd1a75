//! The one statement that writes a batch.

use deadbeat_domain::monitor::ping::PingKind::{Log, Start, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::monitor::transition::on_ping;
use deadbeat_store::monitor;
use deadbeat_store::monitor::batch::{self, Batch};
use deadbeat_store::monitor::{Monitor, Stateful, ping, run};
use deadbeat_store::page::Page;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::setup::{World, at, new_ping, signal};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_pings_update_touches_no_index(options: PgPoolOptions, database: PgConnectOptions) {
    // One connection: it counts all updates, and reports them when told to.
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
    assert_eq!(check, at(90).timestamp(), "moved by the sweep, not by pings");
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
        "looked at for nothing once, which costs less than an index a ping"
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
