//! A person sends deliveries again that were given up or cancelled.

use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_services::ServiceError;
use deadbeat_services::alert::channel;
use deadbeat_services::alert::resend::resend;

use super::*;
use crate::setup::{self, World as Whole};

/// Returns this world's delivery loop.
fn loop_of(world: &Whole) -> Delivery {
    Delivery::new(
        world.store(),
        Arc::new(world.clock.clone()),
        senders(true, None),
        Arc::clone(&world.bell),
        DeliverySettings::default(),
    )
    .with_keyring(setup::keyring())
}

async fn hook(world: &Whole, url: String) -> ChannelId {
    let settings = json!({"url": url});
    let written = channel::create(&world.services, &world.access, "webhook", "Hook", &settings).await;
    written.unwrap().channel.id
}

async fn test(world: &Whole, channel: ChannelId) -> DeliveryId {
    channel::send_test(&world.services, &world.access, channel)
        .await
        .unwrap()
}

async fn status(world: &Whole, id: DeliveryId) -> String {
    sqlx::query_scalar("SELECT status FROM delivery WHERE id = $1")
        .bind(id.0)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

fn conflict(result: Result<(), ServiceError>) -> String {
    match result {
        Err(ServiceError::Conflict(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_dead_delivery_is_sent_again_under_its_id_and_has_a_new_day(pool: PgPool) {
    let world = Whole::new(pool).await;
    let (services, access) = (&world.services, &world.access);
    let receiver = Receiver::answering(Reply::status(500)).await;
    let channel = hook(&world, receiver.url("/hook")).await;
    let id = test(&world, channel).await;
    let delivery = loop_of(&world);
    let wait = |hours| world.clock.advance(TimeDelta::hours(hours));
    let mut tries = 0;
    while status(&world, id).await != "dead" {
        delivery.deliver_once().await.unwrap();
        wait(1);
        tries += 1;
        assert!(tries < 100);
    }
    assert!(conflict(resend(services, access, test(&world, channel).await).await).contains("waits already"));
    wait(100);

    resend(services, access, id).await.unwrap();
    // A second request is refused while the delivery waits.
    assert!(conflict(resend(services, access, id).await).contains("waits already"));
    for _ in 0..3 {
        delivery.deliver_once().await.unwrap();
        assert_eq!(
            status(&world, id).await,
            "pending",
            "the delivery may be retried for a whole day again"
        );
        wait(2);
    }
    receiver.then(Reply::status(200)).then(Reply::status(200));
    delivery.deliver_once().await.unwrap();

    assert_eq!(status(&world, id).await, "sent");
    let attempts = attempt::list(&services.reader(), world.project, id)
        .await
        .unwrap();
    assert!(attempts.windows(2).all(|two| two[0].number < two[1].number));
    let ids: Vec<Option<String>> = receiver
        .requests()
        .iter()
        .filter(|request| request.header("webhook-id") == Some(id.to_string().as_str()))
        .map(|request| request.header("webhook-id").map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), attempts.len());
    assert!(conflict(resend(services, access, id).await).contains("was sent"));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_cannot_be_sent_again_is_refused_with_the_reason(pool: PgPool) {
    let world = Whole::new(pool).await;
    let (services, access) = (&world.services, &world.access);
    let receiver = Receiver::answering(Reply::status(410)).await;
    let id = test(&world, hook(&world, receiver.url("/gone")).await).await;
    loop_of(&world).deliver_once().await.unwrap();
    assert_eq!(status(&world, id).await, "dead");

    assert!(conflict(resend(services, access, id).await).contains("switched off"));
    let other = Access::new(ProjectId::generate(), Actor::System);
    for (access, id) in [(&other, id), (access, DeliveryId::generate())] {
        assert!(matches!(
            resend(services, access, id).await,
            Err(ServiceError::NotFound("delivery"))
        ));
    }
}

/// One notice of failed channels waits for a channel at a time, even if several were given up and are sent again.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn of_two_notices_to_one_channel_one_waits(pool: PgPool) {
    let world = Whole::new(pool).await;
    let (services, access) = (&world.services, &world.access);
    let receiver = Receiver::start().await;
    let witness = hook(&world, receiver.url("/witness")).await;
    let (one, other) = (test(&world, witness).await, test(&world, witness).await);
    sqlx::query("UPDATE delivery SET alert = 'channel_disabled', notice_of = id, status = 'dead', next_attempt_at = NULL, settled_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();

    resend(services, access, one).await.unwrap();

    assert!(conflict(resend(services, access, other).await).contains("waits already"));
}
