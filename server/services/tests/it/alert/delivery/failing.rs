//! Channels that fail permanently: the project gets one notice, and notices neither multiply nor deadlock.

use sqlx::postgres::PgPoolOptions;

use super::*;

/// Delivers until a pass finds nothing, as the delivery loop does.
async fn deliver_all(delivery: &Delivery) {
    for _ in 0..200 {
        if delivery.deliver_once().await.unwrap() == Progress::default() {
            return;
        }
    }
    panic!("200 passes did not empty the outbox");
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn channels_that_all_fail_do_not_multiply_notices(pool: PgPool) {
    let world = World::new(pool).await;
    let mut channels = Vec::new();
    for number in 0..60 {
        channels.push(world.webhook(format!("http://127.0.0.1:9/{number}")).await);
    }
    world.test(channels[0]).await;
    // This delivery loop may not reach private networks: each attempt fails permanently.
    let delivery = world.delivery_with(senders(false, None), DeliverySettings::default());

    deliver_all(&delivery).await;

    let made = count(&world.pool, "SELECT count(*) FROM delivery").await;
    assert!(
        made <= 60,
        "one test and 60 failing channels made {made} deliveries"
    );
    assert_eq!(
        count(
            &world.pool,
            "SELECT count(*) FROM delivery WHERE status = 'pending'"
        )
        .await,
        0
    );
    assert!(world.disabled(channels[0]).await.is_some());
}

/// The endpoint answers 410 to several alerts of one channel at once, while another transaction locks the channel's row.
/// Every settlement has begun before the row becomes free.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn four_answers_of_gone_at_once_do_not_deadlock(pool: PgPool) {
    let world = World::new(pool).await;
    let gone = Receiver::answering(Reply::status(410).held()).await;
    let channel = world.webhook(gone.url("/hook")).await;
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(world.test(channel).await);
    }
    let delivery = world.delivery();
    let pass = tokio::spawn(async move { delivery.deliver_once().await.unwrap() });
    gone.wait_for(4, LIMIT).await;
    // The test's pool has five connections, and the settlements need four.
    let watching = PgPool::connect_with((*world.pool.connect_options()).clone())
        .await
        .unwrap();
    let mut holder = world.store.begin().await.unwrap();
    channel::lock(&mut holder, world.project, channel).await.unwrap();

    gone.release();
    let waiting = async {
        while count(
            &watching,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
            < 4
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
    watching.close().await;
    holder.commit().await.unwrap();
    let progress = pass.await.unwrap();

    assert_eq!((progress.claimed, progress.sent, progress.retried), (4, 0, 0));
    assert_eq!(
        count(
            &world.pool,
            "SELECT count(*) FROM delivery WHERE status = 'pending'"
        )
        .await,
        0
    );
    assert!(world.disabled(channel).await.is_some());
    assert_eq!(deadlocks(&world).await, 0);
}

/// Returns the number of deadlocks that PostgreSQL found in this test's database. A session reports them when it ends, or earlier.
async fn deadlocks(world: &World) -> i64 {
    let options = (*world.pool.connect_options()).clone();
    world.pool.close().await;
    // One connection only: a second one of this pool would count as a session that never ends.
    let one = PgPoolOptions::new().max_connections(1);
    let pool = one.connect_with(options).await.unwrap();
    let alone = async {
        while count(
            &pool,
            "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .await
            > 0
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, alone).await.unwrap();
    count(
        &pool,
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    )
    .await
}

/// The clock of the host that opened the incident was an hour ahead, so its delivery has the larger id.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_clock_that_is_ahead_lets_no_resolved_overtake_its_opened(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver.then(Reply::status(500));
    let channel = world.webhook(receiver.url("/hook")).await;
    let incident = world.incident().await;
    let opened = world.alert_channel(channel, &incident, Phase::Opened).await;
    sqlx::query("UPDATE delivery SET id = 'ffffffff-ffff-7fff-bfff-ffffffffffff' WHERE id = $1")
        .bind(opened.0)
        .execute(&world.pool)
        .await
        .unwrap();
    world.alert_channel(channel, &incident, Phase::Resolved).await;
    let delivery = world.delivery();

    deliver_all(&delivery).await;
    world.clock.advance(TimeDelta::seconds(10));
    deliver_all(&delivery).await;

    let kinds: Vec<String> = receiver
        .requests()
        .iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap())
        .map(|body| body["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["incident.opened", "incident.opened", "incident.resolved"]);
}
