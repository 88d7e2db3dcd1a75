//! Claims are bounded, take the oldest rows first, and never share a row.

use std::collections::HashSet;

use deadbeat_domain::celery::switch::on_heartbeat;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_store::celery::beat;
use deadbeat_store::judge::evaluator;
use deadbeat_store::{incident, monitor};
use sqlx::PgPool;

use crate::setup::{World, at};

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_claimers_never_share_a_monitor(pool: PgPool) {
    let world = World::new(pool).await;
    for number in 0..30 {
        world.monitor(&format!("m{number}")).await;
    }
    let (mut one, mut two) = (world.begin().await, world.begin().await);

    let mine = monitor::claim_overdue(&mut one, at(90), 20).await.unwrap();
    let others = monitor::claim_overdue(&mut two, at(90), 20).await.unwrap();

    assert_eq!((mine.len(), others.len()), (20, 10), "the limit, and the rest");
    let ids: HashSet<_> = mine
        .into_iter()
        .chain(others)
        .map(|row| row.unwrap().id)
        .collect();
    assert_eq!(ids.len(), 30);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitor_whose_ping_is_being_written_is_skipped(pool: PgPool) {
    let world = World::new(pool).await;
    let (held, free) = (world.monitor("held").await, world.monitor("free").await);
    let (mut ping, mut sweep) = (world.begin().await, world.begin().await);
    monitor::lock_for_signals(
        &mut ping,
        &[held.ping_id.0],
        &[],
        deadbeat_store::monitor::Held::Wait,
    )
    .await
    .unwrap();

    let claimed = monitor::claim_overdue(&mut sweep, at(90), 10).await.unwrap();

    let ids: Vec<_> = claimed.into_iter().map(|row| row.unwrap().id).collect();
    assert_eq!(ids, [free.id]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_not_due_is_not_claimed_and_the_longest_overdue_comes_first(pool: PgPool) {
    let world = World::new(pool).await;
    let (late, later) = (world.monitor("later").await, world.monitor("late").await);
    sqlx::query("UPDATE monitor SET check_after = $2 WHERE id = $1")
        .bind(later.id.0)
        .bind(at(10))
        .execute(&world.pool)
        .await
        .unwrap();
    let mut tx = world.begin().await;

    let claim = async |tx: &mut _, now, limit| {
        let rows = monitor::claim_overdue(tx, at(now), limit).await.unwrap();
        rows.into_iter().map(|row| row.unwrap().id).collect::<Vec<_>>()
    };

    assert!(claim(&mut tx, 9, 10).await.is_empty());
    assert_eq!(claim(&mut tx, 89, 10).await, [later.id]);
    assert_eq!(claim(&mut tx, 90, 1).await, [later.id]);
    assert_eq!(claim(&mut tx, 90, 10).await, [later.id, late.id]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_row_that_was_put_aside_is_judged_then_and_armed_only_if_it_was(pool: PgPool) {
    let world = World::new(pool).await;
    let (up, down) = (world.monitor("up").await, world.monitor("down").await);
    world.ping(&down, Fail, 1).await;
    let mut tx = world.begin().await;
    for id in [up.id, down.id] {
        monitor::set_aside(&mut tx, world.project, id, at(3_600))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();

    let mut tx = world.begin().await;
    assert!(
        monitor::claim_overdue(&mut tx, at(3_599), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let claimed = monitor::claim_overdue(&mut tx, at(3_600), 10).await.unwrap();

    let mut armed: Vec<_> = claimed
        .into_iter()
        .map(|row| row.unwrap())
        .map(|monitor| (monitor.slug, monitor.state.deadline_at, monitor.state.hold_until))
        .collect();
    armed.sort();
    assert_eq!(
        armed,
        [
            ("down".to_owned(), None, None),
            ("up".to_owned(), Some(at(90)), Some(at(3_600)))
        ]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_claimers_never_share_a_beat_nor_a_reminder(pool: PgPool) {
    let world = World::new(pool).await;
    for number in 0..10 {
        let mut tx = world.begin().await;
        let mut beat = beat::lock_or_create(&mut tx, world.project, &format!("b{number}"), 15.0, 60.0, at(0))
            .await
            .unwrap();
        assert!(on_heartbeat(&mut beat.state, None, at(0), at(0)).is_some());
        beat::update(&mut tx, std::slice::from_ref(&beat), false)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        world.incident(&world.monitor(&format!("m{number}")).await).await;
    }
    let (mut one, mut two) = (world.begin().await, world.begin().await);

    let beats = (
        beat::claim_overdue(&mut one, at(75), 7).await.unwrap(),
        beat::claim_overdue(&mut two, at(75), 7).await.unwrap(),
    );
    let reminders = (
        incident::claim_reminders(&mut one, at(3_690), 7).await.unwrap(),
        incident::claim_reminders(&mut two, at(3_690), 7).await.unwrap(),
    );

    let names: HashSet<_> = beats
        .0
        .iter()
        .chain(&beats.1)
        .map(|beat| beat.as_ref().unwrap().name.clone())
        .collect();
    assert_eq!((beats.0.len(), beats.1.len(), names.len()), (7, 3, 10));
    let ids: HashSet<_> = reminders
        .0
        .iter()
        .chain(&reminders.1)
        .map(|row| row.as_ref().unwrap().0.id)
        .collect();
    assert_eq!((reminders.0.len(), reminders.1.len(), ids.len()), (7, 3, 10));
    assert!(
        reminders
            .0
            .iter()
            .all(|row| row.as_ref().unwrap().0.remind_at == Some(at(3_690 + 3_600))),
        "the next reminder is an interval later"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_success_makes_the_sweep_judge_later_and_a_failure_not_at_all(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    world.ping(&monitor, Success, 50).await;
    assert_eq!(
        evaluator::agenda(&world.store.reader(), None, at(0))
            .await
            .unwrap()
            .nearest(),
        Some(at(90)),
        "the old check time stays"
    );

    let mut tx = world.begin().await;
    let claimed = monitor::claim_overdue(&mut tx, at(90), 10).await.unwrap();

    assert_eq!(
        claimed
            .into_iter()
            .map(|row| row.unwrap().state.deadline_at)
            .collect::<Vec<_>>(),
        [Some(at(140))]
    );
}
