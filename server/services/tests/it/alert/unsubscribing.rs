//! The owner of a mail address unsubscribes by the link in a mail, whoever owns the channel.

use std::net::IpAddr;
use std::sync::Arc;

use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_domain::people::role::Role;
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::Senders;
use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings};
use deadbeat_services::alert::unsubscribe::{self, Found, Link};
use deadbeat_services::alert::{channel, confirmation};
use deadbeat_services::people::account;
use deadbeat_services::{ChannelRules, ServiceError, Services};
use deadbeat_store::alert::channel::Channel;
use deadbeat_testkit::Inbox;
use deadbeat_testkit::inbox::Mail;
use futures::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use url::Url;
use uuid::Uuid;

use crate::setup::{World, keyring};

const OPS: &str = "ops@example.org";

fn loop_of(world: &World, inbox: &Inbox) -> Delivery {
    let outbound = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    };
    let smtp = SmtpSettings {
        url: inbox.url(),
        from: "Deadbeat <deadbeat@example.org>".to_owned(),
    };
    Delivery::new(
        world.store(),
        Arc::new(world.clock.clone()),
        Senders::standard(&outbound, Some(&smtp)).unwrap(),
        Arc::clone(&world.bell),
        DeliverySettings::default(),
    )
    .with_keyring(keyring())
    .with_links_to(world.site.clone())
}

async fn mail(services: &Services, world: &World, to: &str) -> Channel {
    let written = channel::create(services, &world.access, "email", "Ops", &json!({"to": to})).await;
    written.unwrap().channel
}

fn client() -> Option<IpAddr> {
    Some("198.51.100.7".parse().unwrap())
}

/// Returns the link in a mail's header, read as the page reads it.
fn link_in(mail: &Mail) -> Link {
    let header = mail.header("List-Unsubscribe").unwrap();
    let url = Url::parse(header.trim_start_matches('<').trim_end_matches('>')).unwrap();
    let part = |name: &str| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found.unwrap().1.into_owned()
    };
    let id = |text: &str| text.parse::<Uuid>().unwrap();
    Link {
        channel: ChannelId(id(url.path().rsplit('/').next().unwrap())),
        project: ProjectId(id(&part("project"))),
        to: part("to"),
        key: part("key"),
        token: part("token"),
    }
}

impl World {
    async fn channel_of(&self, id: ChannelId) -> Channel {
        let found = deadbeat_store::alert::channel::get(&self.services.reader(), self.project, id).await;
        found.unwrap().unwrap()
    }

    /// Returns the deliveries as (type, status, why cancelled), oldest first.
    async fn rows_of_outbox(&self) -> Vec<(String, String, Option<String>)> {
        sqlx::query_as("SELECT payload ->> 'type', status, cancel_reason FROM delivery ORDER BY sequence")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn one_mail_of(&self, channel: ChannelId) -> Link {
        let inbox = Inbox::start().await;
        channel::send_test(&self.services, &self.access, channel)
            .await
            .unwrap();
        loop_of(self, &inbox).deliver_once().await.unwrap();
        link_in(&inbox.mails()[0])
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_unsubscribes_gets_no_more_mails_and_the_other_channels_are_alerted(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = mail(&world.services, &world, OPS).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    let inbox = Inbox::start().await;
    let delivery = loop_of(&world, &inbox);
    delivery.deliver_once().await.unwrap();
    let [first] = inbox.mails().try_into().unwrap();
    world.channel("pager").await;

    // RFC 8058, section 3.1, requires both headers and an https address. The link is also in the mail's text.
    let header = first.header("List-Unsubscribe").unwrap();
    assert!(
        header.starts_with("<https://deadbeat.test/unsubscribe/") && header.ends_with('>'),
        "{header}"
    );
    assert_eq!(
        first.header("List-Unsubscribe-Post").as_deref(),
        Some("List-Unsubscribe=One-Click")
    );
    let url = header.trim_start_matches('<').trim_end_matches('>');
    assert!(first.part("text/plain").unwrap().contains(url));
    assert!(
        first
            .part("text/html")
            .unwrap()
            .contains(&url.replace('&', "&amp;"))
    );

    let link = link_in(&first);
    let found = unsubscribe::preview(&world.services, &link, client())
        .await
        .unwrap();
    assert_eq!(
        found,
        Found::Subscribed(OPS.to_owned()),
        "showing the page changes nothing"
    );
    assert_eq!(world.channel_of(ops.id).await.disabled, None);
    world.advance(60);
    for _ in 0..2 {
        let done = unsubscribe::unsubscribe(&world.services, &link, client()).await;
        assert_eq!(done.unwrap(), Found::Unsubscribed(OPS.to_owned()));
    }

    let off = world.channel_of(ops.id).await;
    let (at, reason) = off.disabled.clone().unwrap();
    assert_eq!(at, world.now());
    assert!(
        reason.starts_with("the owner of the address unsubscribed"),
        "{reason}"
    );
    assert!(!off.is_confirmed(), "the address is no longer confirmed");
    let alerted = world
        .count("SELECT count(*) FROM delivery WHERE alert = 'channel_disabled' AND payload ->> 'unsubscribed' = 'true'")
        .await;
    assert_eq!(alerted, 1, "the other channel gets one notice");
    world.ping(&monitor, Success).await;
    world.ping(&monitor, Fail).await;
    delivery.deliver_once().await.unwrap();
    assert_eq!(inbox.mails().len(), 1);
}

/// Deadbeat does not send deliveries that wait when somebody unsubscribes.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_waits_for_the_address_is_cancelled(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = mail(&world.services, &world, OPS).await;
    let link = world.one_mail_of(ops.id).await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;

    unsubscribe::unsubscribe(&world.services, &link, client())
        .await
        .unwrap();

    let row = |kind: &str, status: &str, why: Option<&str>| {
        (kind.to_owned(), status.to_owned(), why.map(str::to_owned))
    };
    assert_eq!(
        world.rows_of_outbox().await,
        [
            row("channel.test", "sent", None),
            row("incident.opened", "cancelled", Some("channel_disabled")),
        ]
    );
}

/// A person who changes the channel cannot make mail go to somebody who unsubscribed; only the owner of the address can.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn only_the_owner_of_the_address_allows_mail_again(pool: PgPool) {
    let world = World::new(pool).await;
    // Neither a member's address nor a server without confirmations overrules the owner's refusal.
    let owner = account::create(&world.services, OPS, "a long password")
        .await
        .unwrap();
    let mut tx = world.store().begin().await.unwrap();
    deadbeat_store::people::project::add_member(&mut tx, world.project, owner.id, Role::Owner, world.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let ops = mail(&world.services, &world, OPS).await;
    let link = world.one_mail_of(ops.id).await;
    unsubscribe::unsubscribe(&world.services, &link, client())
        .await
        .unwrap();

    let renamed = channel::update(&world.services, &world.access, ops.id, Some("Night"), None).await;
    let renamed = renamed.unwrap().channel;
    let again = mail(&world.services, &world, "OPS@example.org").await;
    let confirming = world.services.clone().with_channel_rules(ChannelRules {
        senders: None,
        confirm_mail: true,
    });
    let third = mail(&confirming, &world, OPS).await;

    assert_eq!(
        renamed.disabled, None,
        "a change switches the channel on, as any change does"
    );
    assert!(!renamed.is_confirmed() && !again.is_confirmed() && !third.is_confirmed());
    let test = channel::send_test(&world.services, &world.access, ops.id).await;
    assert!(matches!(test, Err(ServiceError::Conflict(_))), "{test:?}");
    // Another project asks for its own confirmation.
    let other = World::new(world.pool.clone()).await;
    assert!(mail(&other.services, &other, OPS).await.is_confirmed());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_agrees_again_gets_alerts_again(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = mail(&world.services, &world, OPS).await;
    let link = world.one_mail_of(ops.id).await;
    unsubscribe::unsubscribe(&world.services, &link, client())
        .await
        .unwrap();
    channel::ask_again(&world.services, &world.access, ops.id)
        .await
        .unwrap();
    let inbox = Inbox::start().await;
    loop_of(&world, &inbox).deliver_once().await.unwrap();
    let [question] = inbox.mails().try_into().unwrap();
    assert_eq!(
        question.header("List-Unsubscribe"),
        None,
        "there is nothing to unsubscribe from"
    );
    let text = question.part("text/plain").unwrap();
    let word = text.split_whitespace().find(|word| word.contains("/confirm/"));
    let url = Url::parse(word.unwrap()).unwrap();
    let part = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .unwrap()
            .1
            .into_owned()
    };

    let expires = part("expires").parse().unwrap();
    confirmation::confirm(&world.services, ops.id, expires, &part("token"))
        .await
        .unwrap();

    let back = world.channel_of(ops.id).await;
    assert!(back.is_confirmed() && back.disabled.is_none());
    assert!(mail(&world.services, &world, OPS).await.is_confirmed());
    let found = unsubscribe::preview(&world.services, &link, client())
        .await
        .unwrap();
    assert_eq!(
        found,
        Found::Subscribed(OPS.to_owned()),
        "the link in an old mail still works"
    );
}

/// A channel that failed and is then confirmed stays switched off: a person must repair it.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_confirmation_does_not_switch_on_what_failed(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = mail(&world.services, &world, OPS).await;
    sqlx::query(
        "UPDATE channel SET disabled_at = created_at, disabled_reason = 'no such user', confirmed_at = NULL",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let mut tx = world.store().begin().await.unwrap();

    deadbeat_store::alert::channel::agree_again(
        &mut tx,
        world.project,
        ops.id,
        OPS,
        "the owner unsubscribed",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();

    assert!(world.channel_of(ops.id).await.disabled.is_some());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_link_of_another_address_project_or_a_deleted_channel_does_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let other = World::new(world.pool.clone()).await;
    let ops = mail(&world.services, &world, OPS).await;
    let theirs = mail(&other.services, &other, OPS).await;
    let link = world.one_mail_of(ops.id).await;
    let nothing = async |link: &Link| {
        for found in [
            unsubscribe::preview(&world.services, link, client())
                .await
                .unwrap(),
            unsubscribe::unsubscribe(&world.services, link, client())
                .await
                .unwrap(),
        ] {
            assert_eq!(found, Found::Nothing, "{link:?}");
        }
    };

    for bad in [
        Link {
            channel: theirs.id,
            project: other.project,
            ..link.clone()
        },
        Link {
            project: other.project,
            ..link.clone()
        },
        Link {
            token: "0".repeat(64),
            ..link.clone()
        },
    ] {
        nothing(&bad).await;
    }
    let moved = json!({"to": "others@example.org"});
    channel::update(&world.services, &world.access, ops.id, None, Some(&moved))
        .await
        .unwrap();
    nothing(&link).await;
    channel::delete(&world.services, &world.access, ops.id)
        .await
        .unwrap();
    nothing(&link).await;

    let off = world
        .count("SELECT count(*) FROM channel WHERE disabled_at IS NOT NULL")
        .await;
    assert_eq!(off, 0);
    assert_eq!(world.count("SELECT count(*) FROM mail_refusal").await, 0);
}

/// Mail services may press the button twice, from several machines. Meanwhile, the channel fails and its settings change.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn many_at_once_unsubscribe_once(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = mail(&world.services, &world, OPS).await;
    world.channel("pager").await;
    let link = world.one_mail_of(ops.id).await;
    let (another, _stop) = world.another_process();

    let posts = (0..8).map(|n| {
        let services = if n % 2 == 0 { &world.services } else { &another };
        unsubscribe::unsubscribe(services, &link, client())
    });
    let ended = join_all(posts).await;

    for found in ended {
        assert_eq!(found.unwrap(), Found::Unsubscribed(OPS.to_owned()));
    }
    let alerted = world
        .count("SELECT count(*) FROM delivery WHERE alert = 'channel_disabled'")
        .await;
    assert_eq!(alerted, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn wrong_links_without_end_are_refused_and_others_are_not(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = mail(&world.services, &world, OPS).await;
    let link = world.one_mail_of(ops.id).await;
    let wrong = Link {
        token: "0".repeat(64),
        ..link.clone()
    };

    let mut refused = None;
    for _ in 0..100 {
        if let Err(error) = unsubscribe::preview(&world.services, &wrong, client()).await {
            refused = Some(error);
            break;
        }
    }

    assert!(
        matches!(refused, Some(ServiceError::TooMany { .. })),
        "{refused:?}"
    );
    // The owner of the address, from the same client, is not refused.
    let found = unsubscribe::unsubscribe(&world.services, &link, client()).await;
    assert_eq!(found.unwrap(), Found::Unsubscribed(OPS.to_owned()));
}
