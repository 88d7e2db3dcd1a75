//! Deadbeat sends mail only to addresses that confirmed.

use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::monitor::ping::PingKind::Fail;
use deadbeat_domain::people::role::Role;
use deadbeat_services::alert::channel;
use deadbeat_services::alert::confirmation::{self, Found};
use deadbeat_services::people::account;
use deadbeat_services::{ChannelRules, ServiceError, Services};
use deadbeat_store::alert::channel::Channel;

use serde_json::json;
use sqlx::PgPool;

use crate::setup::World;

impl World {
    /// The services of a deployment with strangers: addresses must confirm.
    fn confirming(&self) -> Services {
        self.services.clone().with_channel_rules(ChannelRules {
            senders: None,
            confirm_mail: true,
        })
    }

    async fn stored(&self, id: ChannelId) -> Channel {
        deadbeat_store::alert::channel::get(&self.services.reader(), self.project, id)
            .await
            .unwrap()
            .unwrap()
    }

    /// Returns the deliveries as (type, status, why cancelled), oldest first.
    async fn alerted(&self) -> Vec<(String, String, Option<String>)> {
        sqlx::query_as("SELECT payload ->> 'type', status, cancel_reason FROM delivery ORDER BY sequence")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
}

async fn mail(services: &Services, world: &World, to: &str) -> Result<Channel, ServiceError> {
    channel::create(services, &world.access, "email", "Ops", &json!({"to": to}))
        .await
        .map(|written| written.channel)
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn alerts_to_an_address_that_did_not_confirm_are_cancelled_and_say_why(pool: PgPool) {
    let world = World::new(pool).await;
    let services = world.confirming();
    let ops = mail(&services, &world, "ops@example.org").await.unwrap();
    assert_eq!(ops.confirmed_at, None);
    let monitor = world.monitor("backup").await;

    world.ping(&monitor, Fail).await;
    let test = channel::send_test(&services, &world.access, ops.id).await;

    let alerted = |kind: &str, status: &str, why: Option<&str>| {
        (kind.to_owned(), status.to_owned(), why.map(str::to_owned))
    };
    assert_eq!(
        world.alerted().await,
        [
            alerted("channel.confirm", "pending", None),
            alerted("incident.opened", "cancelled", Some("not_confirmed")),
        ]
    );
    assert!(matches!(test, Err(ServiceError::Conflict(_))), "{test:?}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn addresses_of_members_and_confirmed_ones_of_the_project_are_not_asked(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let services = world.confirming();
    let owner = account::create(&services, "owner@example.org", "a long password")
        .await
        .unwrap();
    let mut tx = world.store().begin().await.unwrap();
    deadbeat_store::people::project::add_member(&mut tx, world.project, owner.id, Role::Owner, world.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let owners = mail(&services, &world, "Owner@Example.org").await.unwrap();
    let stranger = mail(&services, &world, "x@example.net").await.unwrap();
    let mut tx = world.store().begin().await.unwrap();
    assert!(
        deadbeat_store::alert::channel::confirm(&mut tx, &stranger, world.now())
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    let again = mail(&services, &world, "X@example.net").await.unwrap();
    let other = World::new(pool).await;
    let elsewhere = mail(&other.confirming(), &other, "x@example.net").await.unwrap();

    assert!(owners.is_confirmed() && again.is_confirmed());
    assert!(
        !stranger.is_confirmed() && !elsewhere.is_confirmed(),
        "another project needs its own confirmation"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_new_address_is_a_new_question_and_an_old_link_answers_it_no_more(pool: PgPool) {
    let world = World::new(pool).await;
    let services = world.confirming();
    let ops = mail(&services, &world, "ops@example.org").await.unwrap();
    let before = world.stored(ops.id).await;
    let change = json!({"to": "other@example.org"});

    let moved = channel::update(&services, &world.access, ops.id, None, Some(&change))
        .await
        .unwrap()
        .channel;
    let mut tx = world.store().begin().await.unwrap();
    let confirmed = deadbeat_store::alert::channel::confirm(&mut tx, &before, world.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let renamed = channel::update(&services, &world.access, ops.id, Some("Night"), None)
        .await
        .unwrap()
        .channel;

    assert!(!confirmed && !moved.is_confirmed() && !renamed.is_confirmed());
    assert_eq!(world.alerted().await.len(), 2, "one question to each address");
    assert_eq!(renamed.settings.to_json(), json!({"to": "other@example.org"}));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_waits_for_an_address_is_not_sent_to_the_one_that_replaces_it(pool: PgPool) {
    let world = World::new(pool).await;
    // This address counts as confirmed: the channel was added before confirmations were required.
    let ops = mail(&world.services, &world, "ops@example.org").await.unwrap();
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    let services = world.confirming();

    let to = json!({"to": "stranger@example.net"});
    channel::update(&services, &world.access, ops.id, None, Some(&to))
        .await
        .unwrap();

    let cancelled = (
        "incident.opened".to_owned(),
        "cancelled".to_owned(),
        Some("not_confirmed".to_owned()),
    );
    let asked = ("channel.confirm".to_owned(), "pending".to_owned(), None);
    assert_eq!(world.alerted().await, [cancelled, asked]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_address_is_asked_three_times_a_day_whoever_asks(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let services = world.confirming();
    let ops = mail(&services, &world, "stranger@example.net").await.unwrap();
    for _ in 0..2 {
        channel::ask_again(&services, &world.access, ops.id)
            .await
            .unwrap();
    }

    let fourth = channel::ask_again(&services, &world.access, ops.id).await;
    let other = World::new(pool).await;
    let from_another = mail(&other.confirming(), &other, "Stranger+x@example.net").await;

    for refused in [fourth.map(drop), from_another.map(drop)] {
        assert!(
            matches!(refused, Err(ServiceError::TooMany { .. })),
            "{refused:?}"
        );
    }
    let made = world.count("SELECT count(*) FROM channel").await;
    assert_eq!(
        (made, world.alerted().await.len()),
        (1, 3),
        "a refused request stores nothing"
    );
    world.clock.advance(chrono::TimeDelta::days(1));
    channel::ask_again(&services, &world.access, ops.id)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_wrong_or_old_link_confirms_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let services = world.confirming();
    let ops = mail(&services, &world, "ops@example.org").await.unwrap();
    let now = world.now().timestamp();

    for (expires, token) in [
        (now + 60, "0".repeat(64)),
        (now - 60, "0".repeat(64)),
        (i64::MAX, String::new()),
    ] {
        assert_eq!(
            confirmation::preview(&services, ops.id, expires, &token)
                .await
                .unwrap(),
            Found::Nothing
        );
        assert_eq!(
            confirmation::confirm(&services, ops.id, expires, &token)
                .await
                .unwrap(),
            Found::Nothing
        );
    }

    assert!(!world.stored(ops.id).await.is_confirmed());
}
