//! The rules of channels.

use deadbeat_domain::alert::message::Phase;
use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::ServiceError;
use deadbeat_services::alert::channel;
use deadbeat_services::alert::outbox::{self, IncidentAlert};
use deadbeat_services::monitor::Change;
use serde_json::json;
use sqlx::PgPool;

use super::{nights, row};
use crate::setup::World;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_over_before_the_delay_is_never_reported(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("pager", json!({"delay_seconds": 600})).await;
    let monitor = world.job("backup").await;

    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent_after(9).await, [""; 0]);
    world.ping(&monitor, Success).await;

    assert_eq!(world.alerts_sent_after(60).await, [""; 0]);
    assert_eq!(world.outbox().await, [row("opened", "cancelled", Some("over"))]);
    // The delay of the next incident counts from its own beginning.
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent_after(9).await, [""; 0]);
    assert_eq!(world.alerts_sent_after(1).await, ["opened"]);
    world.ping(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_acknowledged_before_the_delay_is_never_reported(pool: PgPool) {
    let world = World::new(pool).await;
    let pager = world.channel_with("pager", json!({"delay_seconds": 600})).await;
    let chat = world.channel("chat").await;
    let monitor = world.job("backup").await;

    world.ping(&monitor, Fail).await;
    assert_eq!(world.send_due().await, [(chat, "opened")]);
    let incident = world.newest_incident().await.id;
    world.acknowledge(incident).await;
    world.sweep_after(7_200).await;
    assert_eq!(world.send_due().await, [(chat, "acknowledged")]);
    world.ping(&monitor, Success).await;

    assert_eq!(
        world.send_due().await,
        [(chat, "resolved")],
        "{pager} got no alert"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn quiet_hours_delay_over_the_night_in_which_the_clock_changes(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("phone", nights()).await;
    let monitor = world.job("backup").await;
    // On 2026-03-29 at 02:00 Berlin's clock jumps to 03:00. 07:00 is therefore 05:00 UTC; the day before, it was 06:00 UTC.
    world.set_clock("2026-03-28T20:59:00Z");
    world.ping(&monitor, Fail).await;
    assert_eq!(world.alerts_sent().await, ["opened"], "it is 21:59 in Berlin");

    // A reminder falls due in each hour of the night. Only one of them waits.
    for _ in 0..7 {
        assert_eq!(world.alerts_sent_after(60).await, [""; 0]);
    }
    world.set_clock("2026-03-29T04:59:59Z");
    assert_eq!(world.alerts_sent().await, [""; 0]);
    world.set_clock("2026-03-29T05:00:00Z");
    assert_eq!(world.alerts_sent().await, ["reminder"]);
    // The all-clear waits, too.
    world.set_clock("2026-03-29T21:00:00Z");
    world.ping(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, [""; 0], "it is 23:00 in Berlin");
    world.ping(&monitor, Fail).await;
    world.ping(&monitor, Success).await;
    world.set_clock("2026-03-30T05:00:00Z");

    assert_eq!(
        world.alerts_sent().await,
        ["resolved"],
        "the incident of the night is over"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_critical_passes_quiet_hours(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("phone", nights()).await;
    let urgent = Change {
        severity: Some(Some(Severity::Critical)),
        ..Change::default()
    };
    let vital = world.job_with("vital", urgent).await;
    let plain = world.job("plain").await;
    world.set_clock("2026-01-15T23:00:00Z");

    world.ping(&plain, Fail).await;
    assert_eq!(world.alerts_sent().await, [""; 0]);
    world.ping(&vital, Fail).await;

    assert_eq!(world.alerts_sent().await, ["opened"]);
    world.set_clock("2026-01-16T06:00:00Z");
    assert_eq!(
        world.alerts_sent().await,
        ["opened"],
        "the alert of the other monitor waited"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn severity_tags_subjects_and_causes_choose_who_is_alerted(pool: PgPool) {
    let world = World::new(pool).await;
    let all = world.channel("all").await;
    let payments = world
        .channel_with("payments", json!({"match": {"tags": ["payments"]}}))
        .await;
    world
        .channel_with("critical", json!({"minimum_severity": "critical"}))
        .await;
    world
        .channel_with("beats", json!({"match": {"subjects": ["beat"]}}))
        .await;
    world
        .channel_with("queues", json!({"match": {"causes": ["QUEUE_*"]}}))
        .await;
    let failures = world
        .channel_with("failures", json!({"match": {"causes": ["FAIL*"]}}))
        .await;
    let ends = world.channel_with("ends", json!({"events": ["resolved"]})).await;
    let tagged = Change {
        tags: Some(vec!["payments".to_owned()]),
        ..Change::default()
    };
    let (pay, other) = (world.job_with("pay", tagged).await, world.job("other").await);

    world.ping(&pay, Fail).await;
    let mut first = world.send_due().await;
    world.ping(&other, Fail).await;
    let mut second = world.send_due().await;
    world.ping(&pay, Success).await;
    let mut third = world.send_due().await;

    for sent in [&mut first, &mut second, &mut third] {
        sent.sort_unstable();
    }
    let expected = |channels: &[_], alert| {
        let mut expected: Vec<_> = channels.iter().map(|channel| (*channel, alert)).collect();
        expected.sort_unstable();
        expected
    };
    assert_eq!(first, expected(&[all, payments, failures], "opened"));
    assert_eq!(second, expected(&[all, failures], "opened"));
    assert_eq!(third, expected(&[all, payments, failures, ends], "resolved"));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn rules_that_change_hold_for_what_waits(pool: PgPool) {
    let world = World::new(pool).await;
    let pager = world.channel_with("pager", json!({"delay_seconds": 3_600})).await;
    let monitor = world.job("backup").await;
    world.ping(&monitor, Fail).await;

    world.set_rules(pager, json!({"delay_seconds": 600})).await;
    assert_eq!(world.alerts_sent_after(9).await, [""; 0]);
    // The channel's rules exclude the incident, and then include it again.
    world
        .set_rules(pager, json!({"minimum_severity": "critical"}))
        .await;
    assert_eq!(world.alerts_sent_after(1).await, [""; 0]);
    assert_eq!(world.outbox().await, [row("opened", "cancelled", Some("rules"))]);
    world
        .set_rules(pager, json!({"minimum_severity": null, "delay_seconds": 900}))
        .await;
    assert_eq!(world.alerts_sent_after(4).await, [""; 0]);
    assert_eq!(world.alerts_sent_after(1).await, ["opened"]);

    // Deadbeat cannot take back an alert that it has sent.
    world
        .set_rules(
            pager,
            json!({"delay_seconds": 7_200, "match": {"causes": ["BEAT_*"]}}),
        )
        .await;
    world.ping(&monitor, Success).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_delivery_under_way_is_left_alone(pool: PgPool) {
    let world = World::new(pool).await;
    let pager = world.channel_with("pager", json!({"delay_seconds": 60})).await;
    let monitor = world.job("backup").await;
    world.ping(&monitor, Fail).await;
    world.sweep_after(60).await;

    let claimed = world.claim().await;
    assert_eq!(claimed.len(), 1);
    world.set_rules(pager, json!({"delay_seconds": 3_600})).await;
    world.ping(&monitor, Success).await;

    assert_eq!(
        world.outbox().await,
        [row("opened", "pending", None), row("resolved", "pending", None)]
    );
    world.settle(&claimed[0]).await;
    assert_eq!(world.alerts_sent().await, ["resolved"]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_due_and_not_sent_yet_is_reported_although_it_is_over(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel_with("pager", json!({"delay_seconds": 60})).await;
    let monitor = world.job("backup").await;
    world.ping(&monitor, Fail).await;
    world.sweep_after(60).await;

    world.ping(&monitor, Success).await;

    assert_eq!(world.alerts_sent().await, ["opened", "resolved"]);
}

/// This test takes the step itself, as an escalation policy will.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_escalation_that_waits_is_cancelled_and_one_that_was_reported_is_resolved(pool: PgPool) {
    let world = World::new(pool).await;
    let first = world.channel("first").await;
    let asleep = world.channel_with("asleep", nights()).await;
    let awake = world.channel("awake").await;
    world.set_clock("2026-01-15T23:00:00Z");
    let monitor = world.monitor_with_channels("backup", vec![first]).await;
    world.ping(&monitor, Fail).await;
    let incident = world.newest_incident().await;
    let escalated = IncidentAlert {
        phase: Phase::Escalated,
        incident: &incident,
        monitor: None,
        at: world.now(),
        step: &[asleep, awake],
        affected: None,
    };
    let mut tx = world.store().begin().await.unwrap();
    outbox::announce_incidents(&mut tx, world.services.site(), &[escalated])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.send_due().await, [(first, "opened"), (awake, "escalated")]);

    world.ping(&monitor, Success).await;

    let mut over = world.send_due().await;
    over.sort_unstable();
    let mut expected = [(first, "resolved"), (awake, "resolved")];
    expected.sort_unstable();
    assert_eq!(over, expected);
    world.set_clock("2026-01-16T08:00:00Z");
    assert_eq!(world.send_due().await, [], "{asleep} got no alert");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn bad_rules_are_refused_and_change_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let pager = world.channel_with("pager", json!({"delay_seconds": 60})).await;
    let rules = json!({"delay_seconds": 120, "quiet_hours": {"timezone": "Europe/Atlantis", "times": []}});

    let rules = rules.as_object().unwrap();
    let refused = channel::update_with(&world.services, &world.access, pager, None, None, rules).await;

    let Err(ServiceError::Invalid(faults)) = refused else {
        panic!("{refused:?}")
    };
    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/quiet_hours/timezone", "/quiet_hours/times"]);
    let stored = deadbeat_store::alert::channel::get(&world.services.reader(), world.project, pager).await;
    assert_eq!(stored.unwrap().unwrap().routing.delay().num_seconds(), 60);
}
