//! Snoozes and mutes of alerts.

use chrono::TimeDelta;
use deadbeat_domain::ids::MonitorId;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_services::ServiceError;
use deadbeat_services::alert::hold::{self, Snoozed};
use deadbeat_services::monitor::Change;
use deadbeat_store::alert::snooze::{Snooze, Target, list};
use deadbeat_store::page::Page;
use serde_json::json;
use sqlx::PgPool;

use super::row;
use crate::setup::World;

impl World {
    async fn snooze(&self, monitor: MonitorId, minutes: i64) {
        hold::snooze(&self.services, &self.access, monitor, minutes * 60)
            .await
            .unwrap();
    }

    async fn snoozes(&self) -> Vec<Snooze> {
        let page = Page {
            after: None,
            limit: 500,
        };
        list(&self.services.reader(), self.project, page, self.now())
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_still_down_when_a_snooze_ends_is_reported_then(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let (stays, recovers) = (world.job("stays").await, world.job("recovers").await);
    let other = world.job("other").await;
    for monitor in [&stays, &recovers] {
        world.snooze(monitor.id, 20).await;
    }

    for monitor in [&stays, &recovers, &other] {
        world.ping(monitor, Fail).await;
    }
    assert_eq!(
        world.alerts_sent().await,
        ["opened"],
        "only the third monitor's alert is sent"
    );
    assert_eq!(
        world.incidents().await.len(),
        3,
        "incidents are recorded nevertheless"
    );
    world.ping(&recovers, Success).await;
    assert_eq!(world.alerts_sent_after(19).await, [""; 0]);

    assert_eq!(world.alerts_sent_after(1).await, ["opened"]);
    world.ping(&stays, Success).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_snooze_that_is_ended_early_reports_at_once(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    world.channel_with("pager", json!({"delay_seconds": 3_600})).await;
    let monitor = world.job("backup").await;
    world.snooze(monitor.id, 600).await;
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent_after(10).await, [""; 0]);

    hold::end_snooze(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(
        world.alerts_sent().await,
        ["opened"],
        "the delay of the pager still holds"
    );
    assert_eq!(world.alerts_sent_after(49).await, [""; 0]);
    // The pager gets its first message about the incident, and needs no reminder.
    assert_eq!(world.alerts_sent_after(1).await, ["opened", "reminder"]);
    assert_eq!(world.snoozes().await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_snooze_during_an_incident_holds_reminders_and_not_the_end(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);
    world.snooze(monitor.id, 150).await;

    assert_eq!(world.alerts_sent_after(60).await, [""; 0]);
    assert_eq!(world.alerts_sent_after(60).await, [""; 0]);
    assert_eq!(
        world.alerts_sent_after(30).await,
        ["reminder"],
        "two were due, and one is sent"
    );
    world.snooze(monitor.id, 600).await;
    world.ping(&monitor, Success).await;

    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mute_records_what_it_holds_and_its_end_reports_what_is_still_down(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    hold::mute(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    // One incident begins and ends during the mute. Another one outlasts the mute by days.
    world.ping(&monitor, Fail).await;
    world.ping(&monitor, Success).await;
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent_after(72 * 60).await, [""; 0]);
    let muted = || row("opened", "cancelled", Some("muted"));
    assert_eq!(world.outbox().await, [muted(), muted()]);
    // A deploy script that snoozes does not end the mute.
    world.snooze(monitor.id, 1).await;
    assert_eq!(world.alerts_sent_after(2).await, [""; 0]);

    hold::end_mute(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.alerts_sent().await, ["opened"]);
    assert_eq!(world.outbox().await, [muted(), row("opened", "sent", None)]);
    world.ping(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_was_acknowledged_in_a_mute_is_not_reported_at_its_end(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    hold::mute(&world.services, &world.access, monitor.id)
        .await
        .unwrap();
    world.ping(&monitor, Fail).await;
    let incident = world.newest_incident().await.id;
    world.acknowledge(incident).await;

    hold::end_mute(&world.services, &world.access, monitor.id)
        .await
        .unwrap();

    assert_eq!(world.alerts_sent_after(120).await, [""; 0]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mute_that_ends_as_the_incident_ends_reports_both_or_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    let (other_ingest, _stop) = world.another_ingest();
    for round in 0..20 {
        // More than two incidents within an hour would be flapping.
        world.advance(3_601);
        hold::mute(&world.services, &world.access, monitor.id)
            .await
            .unwrap();
        world.ping(&monitor, Fail).await;
        assert_eq!(world.alerts_sent().await, [""; 0]);

        let back = other_ingest.accept(crate::setup::incoming(
            deadbeat_services::monitor::signal::incoming::Address::Ping(monitor.ping_id),
            world.signal(Success),
        ));
        let (ended, back) = tokio::join!(hold::end_mute(&world.services, &world.access, monitor.id), back);
        ended.unwrap();
        back.unwrap();

        let alerted = world.alerts_sent().await;
        assert!(
            alerted.is_empty() || alerted == ["opened", "resolved"],
            "round {round}: {alerted:?}"
        );
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_key_snoozes_the_project_a_tag_or_a_monitor(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let shop = Change {
        tags: Some(vec!["shop".to_owned()]),
        ..Change::default()
    };
    let (tagged, plain) = (world.job_with("tagged", shop).await, world.job("plain").await);
    let snooze = async |what: Snoozed, minutes: i64| {
        hold::snooze_by_ping(&world.services, &world.access, &what, TimeDelta::minutes(minutes)).await
    };

    snooze(Snoozed::Tag("shop".to_owned()), 20).await.unwrap();
    for monitor in [&tagged, &plain] {
        world.ping(monitor, Fail).await;
    }
    assert_eq!(world.alerts_sent().await, ["opened"]);
    // A shorter snooze does not end a longer one.
    snooze(Snoozed::Tag("shop".to_owned()), 1).await.unwrap();
    snooze(Snoozed::Project, 60).await.unwrap();
    snooze(Snoozed::Slug("plain".to_owned()), 5).await.unwrap();
    let mut targets: Vec<Target> = world.snoozes().await.into_iter().map(|one| one.target).collect();
    targets.sort_by_key(|target| format!("{target:?}"));
    assert_eq!(
        targets,
        [
            Target::Monitor(plain.id),
            Target::Project,
            Target::Tag("shop".to_owned())
        ]
    );
    assert_eq!(
        world.alerts_sent_after(30).await,
        [""; 0],
        "the whole project is snoozed"
    );
    // One reminder about the plain monitor was due by then, too.
    let mut alerted = world.alerts_sent_after(30).await;
    alerted.sort_unstable();
    assert_eq!(alerted, ["opened", "reminder"]);

    let nobody = snooze(Snoozed::Slug("nobody".to_owned()), 5).await;
    assert!(matches!(nobody, Err(ServiceError::NotFound(_))), "{nobody:?}");
    let bad = snooze(Snoozed::Tag("a b".to_owned()), 5).await;
    assert!(matches!(bad, Err(ServiceError::Invalid(_))), "{bad:?}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_ping_key_cannot_snooze_tags_without_end(pool: PgPool) {
    let world = World::new(pool).await;
    sqlx::query(
        "INSERT INTO snooze (id, project_id, tag, ends_at, created_at, created_by_kind)
        SELECT gen_random_uuid(), $1, 'tag-' || n, $2, $2, 'operator' FROM generate_series(1, 100) AS n",
    )
    .bind(world.project.0)
    .bind(world.now() + TimeDelta::hours(1))
    .execute(&world.pool)
    .await
    .unwrap();
    let snooze = async |tag: &str| {
        let tag = Snoozed::Tag(tag.to_owned());
        hold::snooze_by_ping(&world.services, &world.access, &tag, TimeDelta::hours(2)).await
    };

    let refused = snooze("one-more").await;
    assert!(
        matches!(refused, Err(ServiceError::Limit { limit: 100, .. })),
        "{refused:?}"
    );
    snooze("tag-7").await.unwrap();
    world.advance(3_600);
    snooze("one-more").await.unwrap();

    assert_eq!(
        world.count("SELECT count(*) FROM snooze").await,
        2,
        "ended snoozes are removed"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn another_project_neither_snoozes_nor_ends_a_snooze(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    world.channel("ops").await;
    let monitor = world.job("backup").await;
    let stranger = Access::new(other.project, Actor::Operator);
    let whole = Snoozed::Project;

    let refused = hold::snooze(&world.services, &stranger, monitor.id, 60).await;
    assert!(matches!(refused, Err(ServiceError::NotFound(_))), "{refused:?}");
    hold::snooze_by_ping(&world.services, &stranger, &whole, TimeDelta::hours(1))
        .await
        .unwrap();
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"]);
    world.snooze(monitor.id, 60).await;
    let own = world.snoozes().await[0].id;

    for refused in [
        hold::end(&world.services, &stranger, own).await,
        hold::end_snooze(&world.services, &stranger, monitor.id).await,
        hold::mute(&world.services, &stranger, monitor.id).await,
    ] {
        assert!(matches!(refused, Err(ServiceError::NotFound(_))), "{refused:?}");
    }
    assert_eq!(world.snoozes().await.len(), 1);
}
