//! While no process listens, the server may miss reports, so it judges nobody. Afterwards, it still finds subjects that are really down.

use std::sync::Arc;

use deadbeat_domain::judge::blind_spell::BlindSpell;
use deadbeat_domain::monitor::ping::PingKind::Success;
use deadbeat_domain::monitor::status::Status;
use deadbeat_services::operation::listening::Listening;
use sqlx::PgPool;

use crate::setup::{World, alerted};

fn listening(world: &World) -> Listening {
    Listening::new(
        world.store(),
        Arc::new(world.clock.clone()),
        world.services.ingest().clone(),
    )
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn after_an_outage_of_ours_the_next_slot_is_awaited_and_the_dead_are_found(pool: PgPool) {
    let world = World::new(pool).await;
    let (alive, dead) = (world.monitor("alive").await, world.monitor("dead").await);
    world.ping(&alive, Success).await;
    world.ping(&dead, Success).await;
    let before = listening(&world);
    assert_eq!(before.stamp_once().await.unwrap(), None);
    let started_at = world.now();

    // No process listens for ten minutes. Both monitors were due after one minute.
    assert_eq!(
        world.sweep_after(600).await.claimed,
        0,
        "no process listens, so nothing is judged"
    );
    let spell = listening(&world).stamp_once().await.unwrap();
    assert_eq!(
        spell,
        Some(BlindSpell {
            started_at,
            ended_at: world.now()
        })
    );
    assert_eq!(world.sweep().await.down, 0);
    world.ping(&alive, Success).await;
    before.stamp_once().await.unwrap();
    for _ in 0..89 {
        assert_eq!(world.sweep_after(1).await.down, 0, "a minute, and 30 s of grace");
        before.stamp_once().await.unwrap();
    }
    world.ping(&alive, Success).await;
    assert_eq!(world.sweep_after(1).await.down, 1);

    assert_eq!(world.status(&alive).await, Status::Up);
    assert_eq!(world.incidents().await, [alerted(dead.id.0, "MISSED", true)]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn while_another_process_listens_a_restart_of_one_is_no_spell(pool: PgPool) {
    let world = World::new(pool).await;
    let (one, two) = (listening(&world), listening(&world));
    one.stamp_once().await.unwrap();
    for _ in 0..10 {
        world.advance(1);
        assert_eq!(two.stamp_once().await.unwrap(), None);
    }
    assert_eq!(one.stamp_once().await.unwrap(), None);

    world.advance(5);
    assert!(one.stamp_once().await.unwrap().is_some());
    assert_eq!(
        two.stamp_once().await.unwrap(),
        None,
        "one spell, whichever process comes back"
    );
    assert_eq!(world.count("SELECT count(*) FROM blind_spell").await, 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_clock_that_is_stepped_makes_no_storm(pool: PgPool) {
    for step in [3_600, -3_600] {
        let world = World::new(pool.clone()).await;
        let monitor = world.monitor("m").await;
        world.ping(&monitor, Success).await;
        let listening = listening(&world);
        listening.stamp_once().await.unwrap();

        world.advance(step);
        for _ in 0..20 {
            world.sweep().await;
            listening.stamp_once().await.unwrap();
            world.ping(&monitor, Success).await;
            world.sweep().await;
            world.advance(1);
        }

        assert_eq!(world.status(&monitor).await, Status::Up, "stepped by {step} s");
        sqlx::query("TRUNCATE listener, blind_spell")
            .execute(&world.pool)
            .await
            .unwrap();
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_dies_when_the_clock_is_stepped_back_is_missed_at_once_and_not_when_that_time_comes_again(
    pool: PgPool,
) {
    let world = World::new(pool).await;
    let (alive, silent, later) = (
        world.monitor("alive").await,
        world.monitor("silent").await,
        world.monitor("later").await,
    );
    let monitors = [&alive, &silent, &later];
    let stamps = listening(&world);
    // The clock steps an hour ahead for some seconds, as when a machine wakes up, and back. The hour was a blind spell; all reported after it.
    for (step, pinging) in [
        (0, &monitors[..]),
        (3_600, &monitors),
        (-3_600, &[&alive, &later]),
    ] {
        world.advance(step);
        for _ in 0..5 {
            assert_eq!(world.sweep_after(1).await.down, 0, "stepped by {step} s");
            stamps.stamp_once().await.unwrap();
            for monitor in pinging {
                world.ping(monitor, Success).await;
            }
        }
    }

    // Longer than a minute and 30 s of grace.
    for _ in 0..100 {
        stamps.stamp_once().await.unwrap();
        world.ping(&alive, Success).await;
        world.sweep_after(1).await;
    }

    assert_eq!(world.status(&alive).await, Status::Up);
    assert_eq!(world.status(&silent).await, Status::Down);
    assert_eq!(world.status(&later).await, Status::Down);
    assert_eq!(
        world
            .count("SELECT count(*) FROM blind_spell WHERE ended_at > (SELECT max(stamped_at) FROM listener)")
            .await,
        0
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_that_dies_when_the_clock_is_stepped_back_is_missed_at_once(pool: PgPool) {
    let world = World::new(pool).await;
    let stamps = listening(&world);
    stamps.stamp_once().await.unwrap();
    world.alive().await;

    world.advance(-3_600);
    for _ in 0..40 {
        stamps.stamp_once().await.unwrap();
        world.sweep_after(1).await;
    }

    assert_eq!(
        world
            .count("SELECT count(*) FROM incident WHERE cause = 'BEAT_DOWN'")
            .await,
        1
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_beat_has_its_patience_again_after_an_outage_of_ours(pool: PgPool) {
    let world = World::new(pool).await;
    world.alive().await;
    let stamps = listening(&world);
    stamps.stamp_once().await.unwrap();

    world.advance(600);
    stamps.stamp_once().await.unwrap();
    // Beat has 30 s of grace.
    for _ in 0..29 {
        assert_eq!(world.sweep_after(1).await.down, 0);
        stamps.stamp_once().await.unwrap();
    }
    assert_eq!(world.sweep_after(1).await.down, 1);

    assert_eq!(
        world
            .count("SELECT count(*) FROM incident WHERE cause = 'BEAT_DOWN'")
            .await,
        1
    );
}

/// Returns the number of monitors in each notice in the outbox.
async fn notices(world: &World) -> Vec<i64> {
    sqlx::query_scalar(
        "SELECT (payload->>'monitors')::int8 FROM delivery WHERE payload->>'type' = 'blind_spell.notice' ORDER BY id",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn after_a_day_without_us_each_project_is_alerted_once_what_could_not_be_judged(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("hook").await;
    let mut monitors = Vec::new();
    for name in ["a", "b", "c"] {
        let monitor = world.monitor(name).await;
        world.ping(&monitor, Success).await;
        monitors.push(monitor);
    }
    listening(&world).stamp_once().await.unwrap();
    // A backup of yesterday is restored, and its processes no longer exist.
    world.advance(86_400);
    let stamps = listening(&world);
    let another = world.another_evaluator();
    assert!(stamps.stamp_once().await.unwrap().is_some());

    let mut down = 0;
    for second in 0..60 {
        down += world.sweep().await.down + another.sweep_once().await.unwrap().down;
        if second == 9 {
            assert_eq!(
                notices(&world).await,
                [0_i64; 0],
                "the monitors are counted first"
            );
        }
        world.advance(1);
        stamps.stamp_once().await.unwrap();
    }

    assert_eq!((down, world.incidents().await), (0, vec![]));
    assert_eq!(notices(&world).await, [3]);
    for monitor in &monitors {
        assert_eq!(world.status(monitor).await, Status::Up);
    }
    // A monitor that does not report again is found at its next slot: a period and a grace after the spell.
    world.ping(&monitors[0], Success).await;
    for _ in 60..91 {
        down += world.sweep().await.down;
        world.advance(1);
        stamps.stamp_once().await.unwrap();
    }
    assert_eq!(down, 2);
    assert_eq!(notices(&world).await, [3], "once");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_reminder_that_was_due_in_a_long_spell_waits_for_the_next_one(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("hook").await;
    let monitor = world.monitor_with_channels("m", vec![channel]).await;
    world
        .ping(&monitor, deadbeat_domain::monitor::ping::PingKind::Fail)
        .await;
    sqlx::query("UPDATE incident SET remind_at = opened_at + interval '1 hour'")
        .execute(&world.pool)
        .await
        .unwrap();
    listening(&world).stamp_once().await.unwrap();
    world.advance(86_400);
    let stamps = listening(&world);
    stamps.stamp_once().await.unwrap();

    assert_eq!(world.sweep().await.reminded, 0);

    assert_eq!(world.alerts().await, ["opened"]);
    // The next reminder comes after the project's interval, an hour, however many short spells that hour contains.
    for _ in 0..2 {
        world.advance(1_800);
        stamps.stamp_once().await.unwrap();
    }
    assert_eq!(world.sweep().await.reminded, 1);
}
