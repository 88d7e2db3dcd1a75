//! Deliveries: claimed in order, leased, settled once.

use deadbeat_domain::alert::Alert;
use deadbeat_domain::ids::DeliveryId;
use deadbeat_store::delivery::{self, Settle};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, at};

/// Claims what is due at `now` with a lease of a minute: (delivery, lease, attempt).
async fn claim(world: &World, now: i64) -> Vec<(DeliveryId, Uuid, i32)> {
    let mut tx = world.begin().await;
    let claimed = delivery::claim(&mut tx, at(now), at(now + 60), 10, &[], 10)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut claimed: Vec<_> = claimed
        .into_iter()
        .map(|one| (one.id, one.lease, one.attempt))
        .collect();
    claimed.sort();
    claimed
}

async fn settle(world: &World, id: DeliveryId, lease: Uuid, settle: Settle, now: i64) -> bool {
    let mut tx = world.begin().await;
    let settled = delivery::settle(&mut tx, id, lease, settle, at(now))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    settled
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn the_alerts_of_an_incident_go_to_a_channel_one_after_the_other(pool: PgPool) {
    let world = World::new(pool).await;
    let channels = [world.channel("one").await, world.channel("two").await];
    let incident = Some(world.incident(&world.monitor("m").await).await.id);
    let opened = world.enqueue(incident, Alert::Opened, &channels).await;
    let resolved = world.enqueue(incident, Alert::Resolved, &channels).await;

    let first = claim(&world, 90).await;
    assert_eq!(first.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), opened);
    assert!(claim(&world, 91).await.is_empty(), "leased");
    assert!(settle(&world, first[0].0, first[0].1, Settle::Sent, 92).await);
    assert!(settle(&world, first[1].0, first[1].1, Settle::RetryAt(at(100)), 92).await);

    let second = claim(&world, 93).await;
    assert_eq!(
        second.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
        [resolved[0]],
        "the other channel's waits for its first"
    );
    let retried = claim(&world, 100).await;
    assert_eq!(
        retried
            .iter()
            .map(|(id, _, attempt)| (*id, *attempt))
            .collect::<Vec<_>>(),
        [(opened[1], 2)]
    );
    assert!(settle(&world, retried[0].0, retried[0].1, Settle::Dead, 101).await);
    assert_eq!(
        claim(&world, 102)
            .await
            .iter()
            .map(|(id, ..)| *id)
            .collect::<Vec<_>>(),
        [resolved[1]]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_lease_settles_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let incident = Some(world.incident(&world.monitor("m").await).await.id);
    world.enqueue(incident, Alert::Opened, &[channel]).await;
    let (id, slow, _) = claim(&world, 90).await[0];

    let (again, fresh, attempt) = claim(&world, 150).await[0];

    assert_eq!((again, attempt), (id, 2), "due again when the lease has ended");
    assert!(
        !settle(&world, id, slow, Settle::Dead, 151).await,
        "the slow one comes too late"
    );
    assert!(settle(&world, id, fresh, Settle::Sent, 152).await);
    assert!(
        !settle(&world, id, fresh, Settle::Dead, 153).await,
        "settled once"
    );
    assert!(claim(&world, 9_999).await.is_empty());
    assert_eq!(
        world
            .count("SELECT count(*) FROM delivery WHERE status = 'sent'")
            .await,
        1
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_claimers_never_share_a_delivery(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    for number in 0..12 {
        let incident = Some(
            world
                .incident(&world.monitor(&format!("m{number}")).await)
                .await
                .id,
        );
        world.enqueue(incident, Alert::Opened, &[channel]).await;
    }
    let (mut one, mut two) = (world.begin().await, world.begin().await);

    let mine = delivery::claim(&mut one, at(90), at(150), 8, &[], 8)
        .await
        .unwrap();
    let others = delivery::claim(&mut two, at(90), at(150), 8, &[], 8)
        .await
        .unwrap();

    assert_eq!((mine.len(), others.len()), (8, 4));
    assert!(
        others
            .iter()
            .all(|other| mine.iter().all(|one| one.id != other.id))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_is_opened_and_resolved_once_a_channel_and_reminded_of_often(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let incident = Some(world.incident(&world.monitor("m").await).await.id);

    let mut made = Vec::new();
    for alert in [
        Alert::Opened,
        Alert::Opened,
        Alert::Reminder,
        Alert::Reminder,
        Alert::Resolved,
        Alert::Resolved,
    ] {
        made.push(world.enqueue(incident, alert, &[channel]).await.len());
    }

    assert_eq!(made, [1, 0, 1, 1, 1, 0]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_that_has_its_share_is_passed_over(pool: PgPool) {
    let world = World::new(pool).await;
    let (slow, quick) = (world.channel("slow").await, world.channel("quick").await);
    for _ in 0..9 {
        world.enqueue(None, Alert::Test, &[slow]).await;
    }
    let quick_one = world.enqueue(None, Alert::Test, &[quick]).await;
    let to = |claimed: Vec<delivery::Claimed>| claimed.iter().map(|one| one.channel_id).collect::<Vec<_>>();
    let mut tx = world.begin().await;

    // Ten at most, three of them to one channel; the tenth is behind nine of the slow one.
    let first = delivery::claim(&mut tx, at(90), at(150), 9, &[], 3)
        .await
        .unwrap();
    assert_eq!(to(first), [slow; 3]);
    let busy = [(slow, 3)];
    let second = delivery::claim(&mut tx, at(90), at(150), 9, &busy, 3)
        .await
        .unwrap();
    assert_eq!(second.iter().map(|one| one.id).collect::<Vec<_>>(), quick_one);
    let busy = [(slow, 2), (quick, 1)];
    let third = delivery::claim(&mut tx, at(90), at(150), 9, &busy, 3)
        .await
        .unwrap();
    assert_eq!(to(third), [slow]);

    let next = delivery::claim_of(&mut tx, at(90), at(150), &[(slow, 2), (quick, 2)])
        .await
        .unwrap();
    assert_eq!(to(next), [slow; 2]);
}
