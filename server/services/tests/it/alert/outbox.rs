//! Which channels an alert goes to, and how often.

use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::ServiceError;
use deadbeat_services::alert::channel;
use deadbeat_services::alert::outbox::{self, IncidentAlert};
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::monitor::{self, Change, ChannelChoice};
use deadbeat_services::people::project;
use sqlx::PgPool;

use crate::setup::World;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn all_means_those_added_later_too_and_chosen_means_just_those(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    let all = world.monitor("all").await;
    let chosen = world.monitor_with_channels("chosen", vec![two, two]).await;
    let none = world.monitor_with_channels("none", Vec::new()).await;
    let three = world.channel("three").await;

    let mut alerted = Vec::new();
    for monitor in [&all, &chosen, &none] {
        let before = world.deliveries().await.len();
        world.ping(monitor, Fail).await;
        alerted.push(
            world
                .deliveries()
                .await
                .split_off(before)
                .into_iter()
                .map(|(_, id)| id)
                .collect::<Vec<_>>(),
        );
    }

    assert_eq!(alerted, [vec![one, two, three], vec![two], vec![]]);
    assert_eq!(
        world.incidents().await.len(),
        3,
        "an incident without alerts is still an incident"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn that_it_is_over_is_announced_to_those_who_were_alerted_that_it_began(pool: PgPool) {
    let world = World::new(pool).await;
    let (alerted, deleted) = (world.channel("told").await, world.channel("deleted").await);
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    world.channel("later").await;
    channel::delete(&world.services, &world.access, deleted)
        .await
        .unwrap();
    let change = Change {
        channels: Some(ChannelChoice::These(Vec::new())),
        ..Change::default()
    };
    monitor::update(&world.services, &world.access, monitor.id, &change)
        .await
        .unwrap();

    world.ping(&monitor, Success).await;

    assert_eq!(
        world.deliveries().await,
        ["opened", "resolved"].map(|alert| (alert.to_owned(), alerted))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_joined_by_escalation_is_alerted_that_it_is_over_and_is_not_reminded(pool: PgPool) {
    let world = World::new(pool).await;
    let (first, second) = (world.channel("first").await, world.channel("second").await);
    world.channel("bystander").await;
    let monitor = world.monitor_with_channels("backup", vec![first]).await;
    world.ping(&monitor, Fail).await;
    let open = deadbeat_store::incident::list(
        &world.services.reader(),
        world.project,
        &deadbeat_store::incident::Filter::default(),
        deadbeat_store::page::Page {
            after: None,
            limit: 10,
        },
    )
    .await
    .unwrap();
    let escalated = IncidentAlert {
        phase: Phase::Escalated,
        incident: &open[0],
        monitor: None,
        at: world.now(),
        step: &[second],
        affected: None,
    };
    let mut tx = world.store().begin().await.unwrap();
    let alerted = outbox::announce_incidents(&mut tx, world.services.site(), &[escalated])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(alerted, 1);

    assert_eq!(world.sweep_after(3_600).await.reminded, 1);
    world.ping(&monitor, Success).await;

    let alerts_sent = |channel| {
        let all = world.deliveries();
        async move {
            let of: Vec<String> = all
                .await
                .into_iter()
                .filter(|(_, to)| *to == channel)
                .map(|(alert, _)| alert)
                .collect();
            of
        }
    };
    assert_eq!(alerts_sent(first).await, ["opened", "reminder", "resolved"]);
    assert_eq!(alerts_sent(second).await, ["escalated", "resolved"]);
    assert_eq!(world.deliveries().await.len(), 5, "the bystander gets no alert");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_of_another_project_cannot_be_chosen(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let foreign = World::new(pool).await.channel("foreign").await;
    let monitor = world.monitor("backup").await;

    let change = Change {
        channels: Some(ChannelChoice::These(vec![foreign])),
        ..Change::default()
    };
    let refused = monitor::update(&world.services, &world.access, monitor.id, &change).await;

    assert!(matches!(refused, Err(ServiceError::Invalid(_))), "{refused:?}");
    assert!(
        world.read(monitor.id).await.all_channels,
        "nothing is half-written"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_open_incident_is_reported_again_once_an_interval(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;

    let mut reminded = Vec::new();
    for seconds in [3_599, 1, 0, 1, 3_598, 1, 36_000, 0, 3_600] {
        reminded.push(world.sweep_after(seconds).await.reminded);
    }

    assert_eq!(
        reminded,
        [0, 1, 0, 0, 0, 1, 1, 0, 1],
        "one reminder makes up for an outage of ten hours"
    );
    world.ping(&monitor, Success).await;
    assert_eq!(world.sweep_after(60).await.reminded, 0, "over");
    assert_eq!(
        world.alerts().await,
        [
            "opened", "reminder", "reminder", "reminder", "reminder", "resolved"
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_evaluators_remind_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    for number in 0..50 {
        let monitor = world.monitor(&format!("m{number}")).await;
        world.ping(&monitor, Fail).await;
    }
    world.advance(3_600);
    let other = world.another_evaluator();

    let (here, there) = tokio::join!(world.evaluator.sweep_once(), other.sweep_once());

    assert_eq!(here.unwrap().reminded + there.unwrap().reminded, 50);
    assert_eq!(
        world
            .alerts()
            .await
            .iter()
            .filter(|alert| *alert == "reminder")
            .count(),
        50
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_has_acknowledged_is_not_reminded_and_is_still_alerted_that_it_is_over(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    let open = deadbeat_store::incident::Filter::default();
    let page = deadbeat_store::page::Page {
        after: None,
        limit: 10,
    };
    let found = deadbeat_store::incident::list(&world.services.reader(), world.project, &open, page)
        .await
        .unwrap();

    let first = acknowledgement::acknowledge(&world.services, &world.access, found[0].id)
        .await
        .unwrap();
    world.advance(60);
    let again = acknowledgement::acknowledge(&world.services, &world.access, found[0].id)
        .await
        .unwrap();

    assert_eq!(
        (first.acknowledged_at, first.remind_at),
        (again.acknowledged_at, None),
        "a second acknowledgement changes nothing"
    );
    assert_eq!(world.sweep_after(7_200).await.reminded, 0);
    world.ping(&monitor, Success).await;
    assert_eq!(world.alerts().await, ["opened", "acknowledged", "resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn reminders_that_were_switched_off_do_not_come_once_more(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    project::update(&world.services, &world.access, None, Some(None))
        .await
        .unwrap();

    assert_eq!(world.sweep_after(3_600).await.reminded, 0);

    assert_eq!(world.alerts().await, ["opened"]);
    assert_eq!(
        world
            .count("SELECT count(*) FROM incident WHERE remind_at IS NOT NULL")
            .await,
        0,
        "no further reminder is due"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_may_ask_for_twenty_tests_a_minute(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    for number in 0..20 {
        let channel = if number % 2 == 0 { one } else { two };
        channel::send_test(&world.services, &world.access, channel)
            .await
            .unwrap();
    }
    world.clock.advance(chrono::TimeDelta::seconds(20));

    let refused = channel::send_test(&world.services, &world.access, one).await;

    let Err(ServiceError::TooMany { retry_after, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(retry_after.num_seconds(), 40);
    let other = World::new(pool).await;
    let others = other.channel("three").await;
    channel::send_test(&other.services, &other.access, others)
        .await
        .unwrap();
    world.clock.advance(chrono::TimeDelta::seconds(40));
    channel::send_test(&world.services, &world.access, one)
        .await
        .unwrap();
}
