//! The delivery loop: no channel delays another.

use super::*;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slow_endpoint_holds_up_no_other_and_a_stop_waits_for_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (slow, quick) = (
        Receiver::answering(Reply::status(200).held()).await,
        Receiver::start().await,
    );
    let slow_one = world.test(world.webhook(slow.url("/hook")).await).await;
    let quick_channel = world.webhook(quick.url("/hook")).await;
    world.test(quick_channel).await;
    // The poll interval is too long to help here: the bell must wake the loop during an attempt.
    let settings = DeliverySettings {
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(world.delivery_with(senders(true, None), settings));
    let stop = CancellationToken::new();

    let running = tokio::spawn({
        let (delivery, stop) = (Arc::clone(&delivery), stop.clone());
        async move { delivery.run(stop).await }
    });
    slow.wait_for(1, LIMIT).await;
    quick.wait_for(1, LIMIT).await;
    let late_one = world.test(quick_channel).await;
    world.wake.notify_one();
    quick.wait_for(2, LIMIT).await;
    world.settled(late_one).await;

    assert_eq!(world.status(slow_one).await, "pending");
    stop.cancel();
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    slow.release();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    assert_eq!(world.status(slow_one).await, "sent");
    assert_eq!(delivery.figures().sent(), 3);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_backlog_is_worked_off_without_waiting(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(200).held()).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    for _ in 0..30 {
        world.test(channel).await;
    }
    let settings = DeliverySettings {
        batch: 4,
        concurrency: 6,
        per_channel: 6,
        reserved: 0,
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = world.delivery_with(senders(true, None), settings);
    let stop = CancellationToken::new();

    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });

    // The loop sends as many at once as the limit allows, before any has ended; then it sends the rest.
    receiver.wait_for(6, LIMIT).await;
    receiver.release();
    receiver.wait_for(30, LIMIT).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_hangs_leaves_room_for_the_others(pool: PgPool) {
    let world = World::new(pool).await;
    let (hanging, quick) = (
        Receiver::answering(Reply::status(200).held()).await,
        Receiver::start().await,
    );
    let (hangs, answers) = (
        world.webhook(hanging.url("/hook")).await,
        world.webhook(quick.url("/hook")).await,
    );
    // There are more deliveries than free places, and all are older than those of the other channel.
    for _ in 0..20 {
        world.test(hangs).await;
    }
    world.clock.advance(TimeDelta::seconds(1));
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(world.test(answers).await);
    }
    let settings = DeliverySettings {
        concurrency: 6,
        per_channel: 4,
        reserved: 0,
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = world.delivery_with(senders(true, None), settings);
    let stop = CancellationToken::new();

    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });
    hanging.wait_for(4, LIMIT).await;
    quick.wait_for(9, LIMIT).await;
    for id in others {
        world.settled(id).await;
    }

    assert_eq!(hanging.requests().len(), 4, "the channel's share, and no more");
    // When one attempt ends, the channel's next one follows without a poll or a bell.
    hanging.release();
    hanging.wait_for(20, LIMIT).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_bell_wakes_the_loop(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let settings = DeliverySettings {
        poll: Duration::from_secs(3_600),
        ..DeliverySettings::default()
    };
    let delivery = world.delivery_with(senders(true, None), settings);
    let (figures, stop) = (delivery.figures(), CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });
    let first_pass = async {
        while figures.last_pass_at().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, first_pass).await.unwrap();

    world.test(channel).await;
    world.wake.notify_one();

    receiver.wait_for(1, LIMIT).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_database_that_is_away_ends_neither_the_loop_nor_its_stop(pool: PgPool) {
    let world = World::new(pool).await;
    let delivery = world.delivery();
    world.pool.close().await;
    let stop = CancellationToken::new();

    assert!(delivery.deliver_once().await.unwrap_err().is_unavailable());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }

    assert!(!running.is_finished());
    stop.cancel();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_is_opened_before_it_is_resolved(pool: PgPool) {
    let world = World::new(pool).await;
    let (sick, well) = (Receiver::start().await, Receiver::start().await);
    sick.then(Reply::status(500));
    let channels = [
        world.webhook(sick.url("/hook")).await,
        world.webhook(well.url("/hook")).await,
    ];
    let incident = world.incident().await;
    for phase in [Phase::Opened, Phase::Resolved] {
        for channel in channels {
            world.alert_channel(channel, &incident, phase).await;
        }
    }
    let delivery = world.delivery();
    let kinds = |receiver: &Receiver| -> Vec<String> {
        let body = |request: &Request| serde_json::from_slice::<Value>(&request.body).unwrap();
        receiver
            .requests()
            .iter()
            .map(|request| body(request)["type"].as_str().unwrap().to_owned())
            .collect()
    };

    let first = delivery.deliver_once().await.unwrap();
    let second = delivery.deliver_once().await.unwrap();
    let (sick_waits, well_done) = (kinds(&sick), kinds(&well));
    world.clock.advance(TimeDelta::seconds(3));
    let third = delivery.deliver_once().await.unwrap();
    let fourth = delivery.deliver_once().await.unwrap();

    assert_eq!(
        first,
        Progress {
            claimed: 2,
            sent: 1,
            retried: 1,
            ..Progress::default()
        }
    );
    assert_eq!([second, third, fourth], [sent(1), sent(1), sent(1)]);
    assert_eq!(sick_waits, ["incident.opened"]);
    assert_eq!(well_done, ["incident.opened", "incident.resolved"]);
    assert_eq!(
        kinds(&sick),
        ["incident.opened", "incident.opened", "incident.resolved"]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_row_that_cannot_be_read_holds_up_no_other(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let broken = world.webhook(receiver.url("/broken")).await;
    let good = world.webhook(receiver.url("/good")).await;
    let bad_one = world.test(broken).await;
    world.clock.advance(TimeDelta::seconds(1));
    let good_ones = [world.test(good).await, world.test(good).await];
    sqlx::query("UPDATE channel SET settings = '{}' WHERE id = $1")
        .bind(broken.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(2));
    assert_eq!(delivery.deliver_once().await.unwrap(), Progress::default());

    for id in good_ones {
        assert_eq!(world.status(id).await, "sent");
    }
    assert_eq!(
        (
            world.status(bad_one).await.as_str(),
            delivery.figures().put_aside()
        ),
        ("pending", 1)
    );
    assert!(receiver.requests().iter().all(|request| request.path == "/good"));
}

/// During an upgrade, a newer server knows kinds that this server does not know.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_of_an_unknown_kind_waits_for_a_server_that_knows_it(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let unknown = world.webhook(receiver.url("/unknown")).await;
    let known = world.webhook(receiver.url("/known")).await;
    sqlx::query("UPDATE channel SET kind = 'carrier_pigeon' WHERE id = $1")
        .bind(unknown.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let (waits, goes) = (world.test(unknown).await, world.test(known).await);
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    assert_eq!(world.status(goes).await, "sent");
    assert_eq!(
        (
            world.status(waits).await.as_str(),
            world.attempts(waits).await.len()
        ),
        ("pending", 0)
    );
    assert_eq!(delivery.figures().put_aside(), 1);
    let page = Page {
        after: None,
        limit: 10,
    };
    let listed = channel::list(&world.reader(), world.project, page).await.unwrap();
    assert_eq!(
        listed.len(),
        2,
        "a channel of an unknown kind can be listed and deleted"
    );
    // The newer server takes the delivery when the lease ends.
    sqlx::query("UPDATE channel SET kind = 'webhook' WHERE id = $1")
        .bind(unknown.0)
        .execute(&world.pool)
        .await
        .unwrap();
    world.clock.advance(TimeDelta::seconds(60));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));
}

/// Panics, as a bug would.
struct Panicking;

impl Sender for Panicking {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn send(&self, _: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async { panic!("a bug in a sender; this panic is part of a test") })
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sender_that_panics_costs_an_attempt_and_no_more(pool: PgPool) {
    let world = World::new(pool).await;
    let id = world
        .test(world.webhook("http://example.org/".to_owned()).await)
        .await;
    let delivery = world.delivery_with(
        Senders::of([Arc::new(Panicking) as Arc<dyn Sender>]),
        DeliverySettings::default(),
    );

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);

    assert!(
        world.attempts(id).await[0]
            .detail
            .as_ref()
            .unwrap()
            .contains("a fault in Deadbeat")
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_deleted_while_it_is_sent_to_is_no_trouble(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(410).held()).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    world.test(channel).await;
    let delivery = world.delivery();

    let pass = tokio::spawn(async move { delivery.deliver_once().await.unwrap() });
    receiver.wait_for(1, LIMIT).await;
    let mut tx = world.store.begin().await.unwrap();
    assert!(channel::delete(&mut tx, world.project, channel).await.unwrap());
    tx.commit().await.unwrap();
    receiver.release();

    assert_eq!(
        pass.await.unwrap(),
        Progress {
            claimed: 1,
            unsettled: 1,
            ..Progress::default()
        }
    );
}

/// The attack from the security review: 200 endpoints of one project never answer, and 2,000 deliveries wait for them.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_whose_endpoints_all_hang_holds_up_no_other_project(pool: PgPool) {
    let attacker = World::new(pool.clone()).await;
    let victim = World {
        clock: attacker.clock.clone(),
        wake: Arc::clone(&attacker.wake),
        ..World::new(pool).await
    };
    let (hanging, quick) = (
        Receiver::answering(Reply::status(200).held()).await,
        Receiver::start().await,
    );
    // One statement makes 200 channels with ten tests each, all older than the victim's deliveries.
    let first = attacker.webhook(hanging.url("/tarpit")).await;
    sqlx::query(
        "WITH more AS (
            INSERT INTO channel (id, project_id, kind, name, settings, signing_secret, created_at, updated_at)
            SELECT gen_random_uuid(), project_id, kind, name, settings, signing_secret, created_at, updated_at
            FROM channel, generate_series(2, 200) WHERE id = $1 RETURNING id, project_id, created_at
        )
        INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at)
        SELECT gen_random_uuid(), project_id, id, 'test', '{\"type\": \"channel.test\"}', 'pending', created_at, created_at
        FROM (SELECT id, project_id, created_at FROM more UNION ALL SELECT id, project_id, created_at FROM channel WHERE id = $1) AS channels,
            generate_series(1, 10)",
    )
    .bind(first.0)
    .execute(&attacker.pool)
    .await
    .unwrap();
    let delivery = attacker.delivery();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { delivery.run(stop).await }
    });
    let share = DeliverySettings::default().per_project;
    hanging.wait_for(share, LIMIT).await;
    attacker.clock.advance(TimeDelta::seconds(1));
    let channel = victim.webhook(quick.url("/hook")).await;

    let incident = victim.incident().await;
    let alerted = victim.alert_channel(channel, &incident, Phase::Opened).await;
    victim.wake.notify_one();
    victim.settled(alerted).await;

    assert_eq!(victim.status(alerted).await, "sent");
    assert_eq!(
        hanging.requests().len(),
        share,
        "the attacker's attempts are all still under way"
    );
    stop.cancel();
    hanging.release();
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}
