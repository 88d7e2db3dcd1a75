//! An incident that nobody acknowledges reaches more people, one step after the other.

use deadbeat_domain::ids::{ChannelId, IncidentId};
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::alert::{channel, policy};
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::monitor::Change;
use deadbeat_store::monitor::Monitor;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::rotation::{settings, step};
use crate::setup::World;

impl World {
    /// Returns the channels that got a step, oldest first.
    async fn escalated(&self) -> Vec<ChannelId> {
        let deliveries = self.deliveries().await.into_iter();
        deliveries
            .filter(|(alert, _)| alert == "escalated")
            .map(|(_, channel)| channel)
            .collect()
    }

    /// Moves the clock, sweeps, and returns the channels that got a step in this sweep.
    async fn steps_after(&self, seconds: i64) -> Vec<ChannelId> {
        let before = self.escalated().await.len();
        self.sweep_after(seconds).await;
        self.escalated().await.split_off(before)
    }

    async fn pending(&self) -> i64 {
        self.count("SELECT count(*) FROM escalation").await
    }

    async fn incident(&self) -> IncidentId {
        let id = sqlx::query_scalar("SELECT id FROM incident ORDER BY id DESC LIMIT 1");
        IncidentId(id.fetch_one(&self.pool).await.unwrap())
    }

    async fn acknowledge_it(&self) {
        acknowledgement::acknowledge(&self.services, &self.access, self.incident().await)
            .await
            .unwrap();
    }

    /// A monitor that alerts no channel: only steps send alerts about it.
    async fn quiet_monitor(&self) -> Monitor {
        self.monitor_with_channels("backup", Vec::new()).await
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_acknowledges_between_two_steps_ends_the_escalation(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    let steps = [step(60, &[("channel", one.0)]), step(300, &[("channel", two.0)])];
    world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;

    assert_eq!(world.steps_after(59).await, []);
    assert_eq!(world.steps_after(1).await, [one]);
    assert_eq!(world.steps_after(299).await, []);
    world.acknowledge_it().await;

    assert_eq!(
        world.pending().await,
        0,
        "the acknowledgement ends the escalation"
    );
    assert_eq!(world.steps_after(1).await, []);
    assert_eq!(world.steps_after(100_000).await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_end_of_the_incident_ends_the_escalation_and_is_announced_to_who_joined(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    let steps = [step(0, &[("channel", one.0)]), step(300, &[("channel", two.0)])];
    world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;
    assert_eq!(world.steps_after(0).await, [one]);

    world.ping(&monitor, Success).await;

    assert_eq!(
        world.pending().await,
        0,
        "the end of the incident ends the escalation"
    );
    assert_eq!(world.steps_after(300).await, []);
    let alerted = world.deliveries().await;
    assert_eq!(
        alerted,
        [("escalated".to_owned(), one), ("resolved".to_owned(), one)]
    );

    // The next incident starts with the first step again.
    world.ping(&monitor, Fail).await;
    assert_eq!(world.steps_after(0).await, [one]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn steps_are_repeated_until_the_rounds_are_used_up(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    let steps = [step(0, &[("channel", one.0)]), step(100, &[("channel", two.0)])];
    let settings = json!({"name": "Default", "steps": steps, "repeat_count": 1, "repeat_delay_seconds": 200});
    world.policy(settings).await.unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;

    let mut alerted = Vec::new();
    for seconds in [0, 100, 199, 1, 99, 1] {
        alerted.push(world.steps_after(seconds).await);
    }

    assert_eq!(
        alerted,
        [vec![one], vec![two], vec![], vec![one], vec![], vec![two]]
    );
    assert_eq!(world.pending().await, 0);
    assert_eq!(world.steps_after(100_000).await, []);
}

/// After an outage of the server, each step waits for its delay again: people need time to react.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn steps_that_came_due_while_nobody_swept_do_not_come_at_once(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    let steps = [step(60, &[("channel", one.0)]), step(60, &[("channel", two.0)])];
    world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;

    assert_eq!(world.steps_after(3_000).await, [one]);
    assert_eq!(world.steps_after(0).await, []);
    assert_eq!(world.steps_after(60).await, [two]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_step_goes_to_whoever_is_on_call_when_it_comes(pool: PgPool) {
    let world = World::new(pool).await;
    let (ann, ben) = (world.channel("ann").await, world.channel("ben").await);
    // Ben goes on call between the two steps.
    let handover = world.now() + chrono::TimeDelta::seconds(300);
    let mut settings = settings(&[("Ben", &[ben]), ("Ann", &[ann])]);
    settings["layers"][0]["at"] = json!(handover.format("%H:%M").to_string());
    settings["layers"][0]["starts_on"] = json!(handover.format("%Y-%m-%d").to_string());
    let rotation = world.rotation(settings).await.unwrap();
    let steps = [
        step(0, &[("rotation", rotation.0)]),
        step(600, &[("rotation", rotation.0)]),
    ];
    world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;

    assert_eq!(world.steps_after(0).await, [ann]);
    assert_eq!(world.steps_after(600).await, [ben]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn each_round_tries_the_next_channel_of_a_person_that_works(pool: PgPool) {
    let world = World::new(pool).await;
    let (chat, broken, phone) = (
        world.channel("chat").await,
        world.channel("broken").await,
        world.channel("phone").await,
    );
    let rotation = world
        .rotation(settings(&[("Ann", &[chat, broken, phone])]))
        .await
        .unwrap();
    let steps = [step(0, &[("rotation", rotation.0)])];
    let settings = json!({"name": "Default", "steps": steps, "repeat_count": 2, "repeat_delay_seconds": 60});
    world.policy(settings).await.unwrap();
    sqlx::query("UPDATE channel SET disabled_at = now(), disabled_reason = 'answered 410' WHERE id = $1")
        .bind(broken.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;

    let mut alerted = Vec::new();
    for seconds in [0, 60, 60] {
        alerted.extend(world.steps_after(seconds).await);
    }

    assert_eq!(alerted, [chat, phone, chat]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_evaluators_never_send_a_step_twice(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (world.channel("one").await, world.channel("two").await);
    let steps = [step(0, &[("channel", one.0)]), step(60, &[("channel", two.0)])];
    world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    for number in 0..30 {
        let monitor = world
            .monitor_with_channels(&format!("job {number}"), Vec::new())
            .await;
        world.ping(&monitor, Fail).await;
    }
    let (first, second) = (world.another_evaluator(), world.another_evaluator());

    for seconds in [0, 60] {
        world.advance(seconds);
        let (a, b, c) = tokio::join!(
            first.sweep_once(),
            second.sweep_once(),
            world.evaluator.sweep_once()
        );
        let alerted = a.unwrap().escalated + b.unwrap().escalated + c.unwrap().escalated;
        // A sweep that met a locked row left it for the next sweep.
        let rest = world.sweep().await.escalated;
        assert_eq!(alerted + rest, 30, "after {seconds} s");
    }

    let twice = "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE alert = 'escalated' GROUP BY incident_id, channel_id HAVING count(*) > 1) AS twice";
    assert_eq!(world.count(twice).await, 0);
    assert_eq!(world.escalated().await.len(), 60);
}

/// An acknowledgement waits for a sweep that is taking a step. The next step never comes.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_acknowledgement_beside_a_sweep_ends_the_escalation(pool: PgPool) {
    let world = World::new(pool).await;
    let one = world.channel("one").await;
    let steps = [step(60, &[("channel", one.0)])];
    let settings = json!({"name": "Default", "steps": steps, "repeat_count": 20, "repeat_delay_seconds": 60});
    world.policy(settings).await.unwrap();
    let monitor = world.quiet_monitor().await;

    for _ in 0..10 {
        world.ping(&monitor, Fail).await;
        world.advance(60);
        let (swept, ()) = tokio::join!(world.evaluator.sweep_once(), world.acknowledge_it());
        swept.unwrap();

        assert_eq!(world.pending().await, 0);
        assert_eq!(world.steps_after(60).await, []);
        world.ping(&monitor, Success).await;
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_step_whose_channel_is_gone_is_passed_over(pool: PgPool) {
    let world = World::new(pool).await;
    let (gone, two, three) = (
        world.channel("gone").await,
        world.channel("two").await,
        world.channel("three").await,
    );
    let steps = [
        step(60, &[("channel", gone.0)]),
        step(600, &[("channel", two.0)]),
        step(600, &[("channel", three.0)]),
    ];
    let default = world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;
    // The last release deletes a channel even if a policy names it.
    sqlx::query("DELETE FROM channel WHERE id = $1")
        .bind(gone.0)
        .execute(&world.pool)
        .await
        .unwrap();

    assert_eq!(world.steps_after(60).await, []);
    assert_eq!(
        world.steps_after(0).await,
        [two],
        "the next step does not wait for its delay"
    );

    // This release refuses until the policy no longer names the channel. The escalation then goes on with the step of the same number.
    assert!(
        channel::delete(&world.services, &world.access, three)
            .await
            .is_err()
    );
    policy::update(&world.services, &world.access, default, |settings| {
        settings.steps.truncate(2);
        settings.steps.remove(0);
    })
    .await
    .unwrap();
    channel::delete(&world.services, &world.access, three)
        .await
        .unwrap();
    assert_eq!(world.steps_after(600).await, []);
    assert_eq!(world.pending().await, 0);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_escalates_by_the_policy_of_its_tags_and_no_policy_means_no_escalation(pool: PgPool) {
    let world = World::new(pool).await;
    let (all, payments) = (world.channel("all").await, world.channel("payments").await);
    let tagged = world
        .monitor_with(
            "pay",
            Change {
                tags: Some(vec!["x".to_owned(), "payments".to_owned()]),
                ..Change::default()
            },
        )
        .await;
    let plain = world.monitor("plain").await;
    world.ping(&plain, Fail).await;
    world.ping(&plain, Success).await;
    assert_eq!(world.pending().await, 0);

    let of_tag = json!({"name": "Payments", "match": {"tags": ["payments"]}, "steps": [step(0, &[("channel", payments.0)])]});
    let of_tag = world.policy(of_tag).await.unwrap();
    world.ping(&plain, Fail).await;
    assert_eq!(world.pending().await, 0);
    world.ping(&plain, Success).await;
    world
        .policy(json!({"name": "Default", "steps": [step(0, &[("channel", all.0)])]}))
        .await
        .unwrap();
    world.ping(&tagged, Fail).await;
    assert_eq!(world.steps_after(0).await, [payments]);
    world.ping(&plain, Fail).await;
    assert_eq!(world.steps_after(0).await, [all]);

    // Without its policy, an incident does not escalate any further.
    world.ping(&tagged, Success).await;
    world.ping(&tagged, Fail).await;
    policy::delete(&world.services, &world.access, of_tag)
        .await
        .unwrap();
    assert_eq!(world.steps_after(0).await, []);
    assert_eq!(world.pending().await, 0);
}

/// Rows that no version wrote: the evaluator puts each aside for an hour and handles the others.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_escalation_that_cannot_be_read_holds_up_no_other(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool.clone()).await;
    let (one, theirs) = (world.channel("one").await, other.channel("theirs").await);
    for (world, channel) in [(&world, one), (&other, theirs)] {
        let steps = [step(0, &[("channel", channel.0)])];
        world
            .policy(json!({"name": "Default", "steps": steps}))
            .await
            .unwrap();
        let monitor = world.quiet_monitor().await;
        world.ping(&monitor, Fail).await;
    }
    sqlx::query("UPDATE escalation_policy SET settings = settings || '{\"steps\": 1}' WHERE project_id = $1")
        .bind(world.project.0)
        .execute(&pool)
        .await
        .unwrap();

    assert_eq!(world.steps_after(0).await, [theirs]);
    assert_eq!(world.pending().await, 1);
    let settings = json!({"name": "Default", "steps": [step(0, &[("channel", one.0)])], "repeat_count": 0,
        "repeat_delay_seconds": 600});
    sqlx::query("UPDATE escalation_policy SET settings = $2 WHERE project_id = $1")
        .bind(world.project.0)
        .bind(settings)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(world.steps_after(3_599).await, []);
    assert_eq!(world.steps_after(1).await, [one]);
}

/// The last release resolves an incident and leaves its escalation row behind.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_the_last_release_resolved_does_not_escalate(pool: PgPool) {
    let world = World::new(pool).await;
    let one = world.channel("one").await;
    let steps = [step(60, &[("channel", one.0)])];
    world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();
    let monitor = world.quiet_monitor().await;
    world.ping(&monitor, Fail).await;
    let id: Uuid = world.incident().await.0;
    sqlx::query("UPDATE incident SET resolved_at = opened_at, remind_at = NULL WHERE id = $1")
        .bind(id)
        .execute(&world.pool)
        .await
        .unwrap();

    assert_eq!(world.steps_after(60).await, []);
    assert_eq!(world.pending().await, 0);
}
