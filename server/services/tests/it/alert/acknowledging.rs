//! A person acknowledges an incident, by the API or by the link in an alert, and every channel that got the alert gets a message.

use std::sync::Arc;

use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::alert::channel;
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::Senders;
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings};
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::incident::link::{self, Link};
use deadbeat_testkit::Receiver;
use serde_json::{Value, json};
use sqlx::PgPool;
use url::Url;
use uuid::Uuid;

use crate::setup::{World, keyring};

fn loop_of(world: &World) -> Delivery {
    let outbound = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    };
    Delivery::new(
        world.store(),
        Arc::new(world.clock.clone()),
        Senders::standard(&outbound, None).unwrap(),
        Arc::clone(&world.bell),
        DeliverySettings::default(),
    )
    .with_keyring(keyring())
    .with_links_to(world.site.clone())
}

async fn hook(world: &World, receiver: &Receiver) -> ChannelId {
    let settings = json!({"url": receiver.url("/hook")});
    let written = channel::create(&world.services, &world.access, "webhook", "Ops", &settings).await;
    written.unwrap().channel.id
}

fn bodies(receiver: &Receiver) -> Vec<Value> {
    receiver
        .requests()
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

/// Returns the link of a message, read as the page reads it.
fn link_in(body: &Value) -> Link {
    let url = Url::parse(body["incident"]["acknowledge_url"].as_str().unwrap()).unwrap();
    let part = |name: &str| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found.unwrap().1.into_owned()
    };
    let id = |text: String| text.parse::<Uuid>().unwrap();
    Link {
        incident: IncidentId(id(url.path().rsplit('/').next().unwrap().to_owned())),
        project: ProjectId(id(part("project"))),
        channel: ChannelId(id(part("channel"))),
        expires: part("expires").parse().unwrap(),
        key: part("key"),
        token: part("token"),
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_link_in_an_alert_acknowledges_and_those_who_got_it_learn_who_did(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    hook(&world, &receiver).await;
    let delivery = loop_of(&world);
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    delivery.deliver_once().await.unwrap();
    let link = link_in(&bodies(&receiver)[0]);

    let seen = link::preview(&world.services, &link).await.unwrap().unwrap();
    assert_eq!(seen.acknowledged_at, None, "showing the page changes nothing");
    assert_eq!(world.alerts().await, ["opened"]);
    world.advance(60);
    let done = link::acknowledge(&world.services, &link, None)
        .await
        .unwrap()
        .unwrap();
    let again = link::acknowledge(&world.services, &link, None)
        .await
        .unwrap()
        .unwrap();

    assert_eq!(done.acknowledged_by.as_deref(), Some("the link in channel Ops"));
    assert_eq!((done.acknowledged_at, done.remind_at), (Some(world.now()), None));
    assert_eq!(again, done, "a second acknowledgement changes nothing");
    assert_eq!(
        world.alerts().await,
        ["opened", "acknowledged"],
        "one alert about the acknowledgement"
    );
    delivery.deliver_once().await.unwrap();
    let alerted = &bodies(&receiver)[1];
    assert_eq!(alerted["type"], "incident.acknowledged");
    assert_eq!(alerted["incident"]["acknowledged_by"], "the link in channel Ops");
    assert!(
        alerted["incident"]["acknowledge_url"].is_null(),
        "an acknowledged incident has no link"
    );

    world.ping(&monitor, Success).await;
    delivery.deliver_once().await.unwrap();
    let resolved = &bodies(&receiver)[2];
    assert_eq!(resolved["type"], "incident.resolved");
    assert!(resolved["incident"]["acknowledge_url"].is_null());
}

/// The stored message has no signature. A person who reads the database or a dump therefore cannot acknowledge.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_outbox_holds_no_link(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    hook(&world, &receiver).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    loop_of(&world).deliver_once().await.unwrap();

    let stored: String = sqlx::query_scalar("SELECT payload::text FROM delivery")
        .fetch_one(&world.pool)
        .await
        .unwrap();

    assert!(!stored.contains("/acknowledge/"), "{stored}");
    assert!(bodies(&receiver)[0]["incident"]["acknowledge_url"].is_string());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_link_of_a_deleted_channel_of_another_incident_or_too_old_does_nothing(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = hook(&world, &receiver).await;
    let (one, two) = (world.monitor("one").await, world.monitor("two").await);
    world.ping(&one, Fail).await;
    world.ping(&two, Fail).await;
    let delivery = loop_of(&world);
    delivery.deliver_once().await.unwrap();
    let links: Vec<Link> = bodies(&receiver).iter().map(link_in).collect();
    let good = &links[0];
    for bad in [
        Link {
            incident: links[1].incident,
            ..good.clone()
        },
        Link {
            project: other.project,
            ..good.clone()
        },
        Link {
            expires: good.expires + 1,
            ..good.clone()
        },
    ] {
        assert_eq!(
            link::acknowledge(&world.services, &bad, None).await.unwrap(),
            None,
            "{bad:?}"
        );
    }
    world.advance(7 * 86_400 + 1);
    assert_eq!(
        link::acknowledge(&world.services, good, None).await.unwrap(),
        None,
        "the link has expired"
    );

    world.ping(&one, Success).await;
    world.ping(&one, Fail).await;
    delivery.deliver_once().await.unwrap();
    delivery.deliver_once().await.unwrap();
    let fresh = bodies(&receiver)
        .iter()
        .filter(|body| body["type"] == "incident.opened")
        .map(link_in)
        .next_back()
        .unwrap();
    channel::delete(&world.services, &world.access, channel)
        .await
        .unwrap();
    assert_eq!(link::preview(&world.services, &fresh).await.unwrap(), None);
    assert_eq!(
        link::acknowledge(&world.services, &fresh, None).await.unwrap(),
        None
    );
    let acknowledged = "SELECT count(*) FROM incident WHERE acknowledged_at IS NOT NULL";
    assert_eq!(world.count(acknowledged).await, 0);
}

/// Acknowledging a resolved incident sends no message: nobody has to work on it.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn of_what_is_over_nobody_is_alerted_that_it_is_acknowledged(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    world.ping(&monitor, Success).await;
    let id: Uuid = sqlx::query_scalar("SELECT id FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();

    let seen = acknowledgement::acknowledge(&world.services, &world.access, IncidentId(id))
        .await
        .unwrap();

    assert!(seen.acknowledged_at.is_some() && seen.acknowledged_by.is_some());
    assert_eq!(world.alerts().await, ["opened", "resolved"]);
}
