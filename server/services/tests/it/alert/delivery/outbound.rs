//! Limits on what an endpoint can do to this server.

use super::*;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_private_address_is_refused_and_never_connected_to(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let guarded = world.delivery_with(senders(false, None), DeliverySettings::default());

    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
    ] {
        let channel = world.webhook(format!("http://{host}:{port}/hook")).await;
        let id = world.test(channel).await;
        assert_eq!(guarded.deliver_once().await.unwrap().dead, 1, "{host}");
        let reason = world.disabled(channel).await.unwrap();
        assert_eq!(
            reason.contains("DEADBEAT_ALLOW_PRIVATE_NETWORKS"),
            host != "0.0.0.0",
            "{host}: {reason}"
        );
        assert_eq!(
            world.attempts(id).await[0].detail.as_deref(),
            Some(reason.as_str())
        );
    }

    assert_eq!(receiver.connections(), 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_redirect_is_not_followed(pool: PgPool) {
    let world = World::new(pool).await;
    let (here, there) = (Receiver::start().await, Receiver::start().await);
    here.then(Reply::status(307).header("Location", &there.url("/elsewhere")));
    let channel = world.webhook(here.url("/hook")).await;
    let id = world.test(channel).await;

    assert_eq!(world.delivery().deliver_once().await.unwrap(), RETRIED);

    assert_eq!(there.connections(), 0);
    let detail = world.attempts(id).await.remove(0).detail.unwrap();
    assert!(detail.contains("redirects are not followed"), "{detail}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_endless_answer_is_cut(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    receiver
        .then(Reply::status(500).body(vec![b'x'; 1_000_000]))
        .then(Reply::status(202).body("so far").stalled());
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery();

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    world.clock.advance(TimeDelta::seconds(5));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let attempts = world.attempts(id).await;
    assert!(attempts[0].detail.as_ref().unwrap().chars().count() < 250);
    assert_eq!(attempts[1].response_code, Some(202));
    // The sender did not read the body: otherwise it would have waited for the rest.
    assert!(attempts[1].duration_ms < 5_000, "{} ms", attempts[1].duration_ms);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_endpoint_that_never_answers_is_given_up_for_now(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(200).held()).await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let id = world.test(channel).await;
    let impatient = DeliverySettings {
        send_limit: Duration::from_millis(200),
        ..DeliverySettings::default()
    };

    assert_eq!(
        world
            .delivery_with(senders(true, None), impatient)
            .deliver_once()
            .await
            .unwrap(),
        RETRIED
    );

    assert!(
        world.attempts(id).await[0]
            .detail
            .as_ref()
            .unwrap()
            .starts_with("not done within")
    );
}
