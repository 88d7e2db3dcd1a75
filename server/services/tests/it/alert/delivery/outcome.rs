//! The result of an attempt: sent, retried or given up; and leases.

use deadbeat_store::alert::claim::{self, Share};

use super::*;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_alert_is_sent_once_and_signed(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook?team=ops")).await;
    let incident = world
        .incident_with("nächtlich meldet sich nicht.", Vec::new())
        .await;
    let payload = world.message(&incident, Phase::Opened).to_json();
    let id = world.alert_channel(channel, &incident, Phase::Opened).await;
    let delivery = world.delivery();

    let first = delivery.deliver_once().await.unwrap();
    let second = delivery.deliver_once().await.unwrap();

    assert_eq!((first, second), (sent(1), Progress::default()));
    let [request] = receiver.requests().try_into().unwrap();
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/hook?team=ops")
    );
    assert_eq!(request.header("webhook-id"), Some(id.to_string().as_str()));
    assert_eq!(
        request.header("webhook-timestamp"),
        Some(world.clock.now().timestamp().to_string().as_str())
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some("Deadbeat/test"));
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), payload);
    assert_signed(&request);
    assert_eq!(world.status(id).await, "sent");
    let [attempt] = world.attempts(id).await.try_into().unwrap();
    assert_eq!(
        (attempt.number, attempt.outcome.as_str(), attempt.response_code),
        (1, "sent", Some(200))
    );
    assert_eq!(attempt.started_at, world.clock.now());
    assert_eq!(
        (delivery.figures().sent(), delivery.last_success_at()),
        (1, Some(world.clock.now()))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_passing_failure_is_tried_again_under_the_same_id(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver
        .then(Reply::status(500).body("out\r\nof \0 order"))
        .then(Reply::close());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();
    let began = world.clock.now();

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    let due = world.row(id).await.next_attempt_at.unwrap();
    world.clock.set(due - TimeDelta::microseconds(1));
    assert_eq!(delivery.deliver_once().await.unwrap(), Progress::default());
    world.clock.set(due);
    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    world.clock.advance(TimeDelta::seconds(10));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let wait = (due - began).num_milliseconds();
    assert!((1_600..=2_400).contains(&wait), "tried again after {wait} ms");
    let requests = receiver.requests();
    let ids: HashSet<_> = requests
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!((requests.len(), ids), (3, HashSet::from([id.to_string()])));
    assert_ne!(
        requests[0].header("webhook-timestamp"),
        requests[2].header("webhook-timestamp")
    );
    requests.iter().for_each(assert_signed);
    let attempts = world.attempts(id).await;
    let outcomes: Vec<_> = attempts
        .iter()
        .map(|a| (a.number, a.outcome.as_str(), a.response_code))
        .collect();
    assert_eq!(
        outcomes,
        [
            (1, "retry", Some(500)),
            (2, "retry", None),
            (3, "sent", Some(200))
        ]
    );
    assert_eq!(attempts[0].detail.as_deref(), Some("answered 500: out of order"));
    assert!(
        attempts[1]
            .detail
            .as_ref()
            .unwrap()
            .starts_with("no answer from 127.0.0.1"),
        "{:?}",
        attempts[1].detail
    );
    let figures = delivery.figures();
    assert_eq!((figures.sent(), figures.retried(), figures.dead()), (1, 2, 0));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_receiver_may_ask_for_more_time(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let date = (world.clock.now() + TimeDelta::seconds(120))
        .format("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    receiver.then(Reply::status(429).header("Retry-After", "90"));
    receiver.then(Reply::status(503).header("Retry-After", &date));
    let channel = world.webhook(receiver.url("/hook")).await;
    let (first, second) = (world.test(channel).await, world.test(channel).await);
    let one_by_one = DeliverySettings {
        concurrency: 1,
        ..DeliverySettings::default()
    };

    world
        .delivery_with(senders(true, None), one_by_one)
        .deliver_once()
        .await
        .unwrap();

    let waits = [world.row(first).await, world.row(second).await]
        .map(|row| (row.next_attempt_at.unwrap() - world.clock.now()).num_seconds());
    assert_eq!(HashSet::from(waits), HashSet::from([90, 120]));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_deliverers_never_send_the_same(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let mut expected = HashSet::new();
    for _ in 0..50 {
        expected.insert(world.test(channel).await.to_string());
    }
    let (one, other) = (world.delivery(), world.delivery());

    let passes = tokio::join!(
        one.deliver_once(),
        other.deliver_once(),
        one.deliver_once(),
        other.deliver_once()
    );

    let claimed = [passes.0, passes.1, passes.2, passes.3]
        .map(|pass| pass.unwrap().claimed)
        .iter()
        .sum::<usize>();
    let requests = receiver.requests();
    let ids: HashSet<_> = requests
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!((claimed, requests.len()), (50, 50));
    assert_eq!(ids, expected);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_a_dead_process_held_is_done_when_its_lease_ends(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let now = world.clock.now();
    let mut tx = world.store.begin().await.unwrap();
    let share = Share {
        project_id: world.project,
        channel_id: channel,
        count: 1,
    };
    let held = claim::claim(&mut tx, now, now + TimeDelta::seconds(60), &[share])
        .await
        .unwrap()
        .remove(0);
    tx.commit().await.unwrap();
    let delivery = world.delivery();

    world.clock.advance(TimeDelta::seconds(59));
    let before = delivery.deliver_once().await.unwrap();
    world.clock.advance(TimeDelta::seconds(1));
    let after = delivery.deliver_once().await.unwrap();

    assert_eq!((before, after), (Progress::default(), sent(1)));
    assert_eq!(receiver.requests().len(), 1);
    // The first process was alive after all. Its settlement fails, because it has lost its lease.
    let mut tx = world.store.begin().await.unwrap();
    assert!(
        !delivery::settle(
            &mut tx,
            world.project,
            id,
            held.lease,
            Settle::Dead,
            world.clock.now()
        )
        .await
        .unwrap()
    );
    tx.commit().await.unwrap();
    assert_eq!(world.status(id).await, "sent");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_lease_settles_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver.then(Reply::status(410).held());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let (slow, quick) = (world.delivery(), world.delivery());

    let slow = tokio::spawn(async move { slow.deliver_once().await.unwrap() });
    receiver.wait_for(1, LIMIT).await;
    world.clock.advance(TimeDelta::seconds(61));
    assert_eq!(quick.deliver_once().await.unwrap(), sent(1));
    receiver.release();

    assert_eq!(
        slow.await.unwrap(),
        Progress {
            claimed: 1,
            unsettled: 1,
            ..Progress::default()
        }
    );
    assert_eq!(
        (world.status(id).await.as_str(), world.disabled(channel).await),
        ("sent", None)
    );
    let attempts: Vec<_> = world
        .attempts(id)
        .await
        .into_iter()
        .map(|a| (a.number, a.outcome))
        .collect();
    assert_eq!(attempts, [(2, "sent".to_owned())]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_claim_whose_lease_is_nearly_over_is_not_begun(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    world.test(channel).await;
    let short = DeliverySettings {
        lease: Duration::from_secs(14),
        ..DeliverySettings::default()
    };

    let progress = world
        .delivery_with(senders(true, None), short)
        .deliver_once()
        .await
        .unwrap();

    assert_eq!(
        progress,
        Progress {
            claimed: 1,
            unsettled: 1,
            ..Progress::default()
        }
    );
    assert_eq!(receiver.connections(), 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn after_a_day_of_failures_a_delivery_is_given_up(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(503)).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();
    let began = world.clock.now();

    while let Some(due) = world.row(id).await.next_attempt_at {
        world.clock.set(due.max(began));
        assert_eq!(delivery.deliver_once().await.unwrap().claimed, 1);
    }

    let row = world.row(id).await;
    assert_eq!(row.status, "dead");
    let patience = row.settled_at.unwrap() - began;
    assert!(
        (TimeDelta::hours(22)..=TimeDelta::hours(24)).contains(&patience),
        "given up after {patience}"
    );
    assert_eq!(world.attempts(id).await.len(), receiver.requests().len());
    // The endpoint may recover: only a permanent failure switches the channel off.
    assert_eq!(world.disabled(channel).await, None);
    assert_eq!(delivery.figures().dead(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn gone_switches_the_channel_off_and_alerts_the_others(pool: PgPool) {
    let world = World::new(pool).await;
    let gone = Receiver::answering(Reply::status(410).body("moved out")).await;
    let other = Receiver::start().await;
    let channel = world.webhook(gone.url("/hook")).await;
    world.webhook(other.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), DEAD);
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    assert_eq!(world.status(id).await, "dead");
    let attempt = world.attempts(id).await.remove(0);
    assert_eq!(
        (attempt.outcome.as_str(), attempt.response_code),
        ("failed", Some(410))
    );
    let reason = world.disabled(channel).await.unwrap();
    assert!(
        reason.contains("410 Gone") && reason.contains("moved out"),
        "{reason}"
    );
    let alerted: Value = serde_json::from_slice(&other.requests()[0].body).unwrap();
    assert_eq!(alerted["type"], "channel.disabled");
    assert_eq!(
        alerted["channel"],
        json!({"id": channel, "name": "hook", "kind": "webhook"})
    );
    assert_eq!(
        (&alerted["reason"], &alerted["project"]["name"]),
        (&json!(reason), &json!("Shop"))
    );
    assert_eq!(gone.requests().len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_was_repaired_meanwhile_stays_on(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver.then(Reply::status(410).held());
    let channel = world.webhook(receiver.url("/old")).await;
    world.test(channel).await;
    let delivery = world.delivery();

    let pass = tokio::spawn(async move { delivery.deliver_once().await.unwrap() });
    receiver.wait_for(1, LIMIT).await;
    world.clock.advance(TimeDelta::seconds(1));
    let mut tx = world.store.begin().await.unwrap();
    let mut repaired = channel::lock(&mut tx, world.project, channel)
        .await
        .unwrap()
        .unwrap();
    repaired.settings = Settings::from(WebhookSettings {
        url: receiver.url("/new"),
    });
    repaired.updated_at = world.clock.now();
    channel::update(&mut tx, &repaired).await.unwrap();
    tx.commit().await.unwrap();
    receiver.release();

    assert_eq!(pass.await.unwrap(), DEAD);
    assert_eq!(world.disabled(channel).await, None);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_waits_for_a_channel_that_is_switched_off_is_cancelled(pool: PgPool) {
    let world = World::new(pool).await;
    let gone = Receiver::answering(Reply::status(410)).await;
    let channel = world.webhook(gone.url("/hook")).await;
    let (first, second) = (world.test(channel).await, world.test(channel).await);
    let settings = DeliverySettings {
        batch: 1,
        ..DeliverySettings::default()
    };
    let one_at_a_time = world.delivery_with(senders(true, None), settings);

    assert_eq!(one_at_a_time.deliver_once().await.unwrap(), DEAD);

    let mut statuses = [world.status(first).await, world.status(second).await];
    statuses.sort();
    assert_eq!(statuses, ["cancelled", "dead"]);
    assert_eq!(one_at_a_time.deliver_once().await.unwrap().claimed, 0);
    assert_eq!(gone.requests().len(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_waited_for_more_than_a_day_is_cancelled_and_not_sent(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let old = world.test(channel).await;
    world.clock.advance(TimeDelta::days(1));
    let younger = world.test(channel).await;
    world.clock.advance(TimeDelta::seconds(1));
    let delivery = world.delivery();

    delivery.deliver_once().await.unwrap();

    assert_eq!(world.status(old).await, "cancelled");
    assert_eq!(world.status(younger).await, "sent");
    assert_eq!(receiver.requests().len(), 1);
}
