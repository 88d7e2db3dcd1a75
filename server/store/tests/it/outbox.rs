//! Deliveries are claimed in order, leased, and settled once.

use deadbeat_domain::alert::Alert;
use deadbeat_domain::ids::{ChannelId, DeliveryId, ProjectId};
use deadbeat_store::Tx;
use deadbeat_store::alert::claim::{self, Claimed, Share, Steps};
use deadbeat_store::alert::delivery::{self, Settle};
use deadbeat_store::people::quota::{self, Counted};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, at};

/// Searches for channels with a delivery that is due at `now`.
async fn due(world: &World, now: i64, full: &[ProjectId], steps: i32, enough: i32) -> Steps {
    claim::due_channels(&world.store.reader(), at(now), claim::START, full, steps, enough)
        .await
        .unwrap()
}

/// Leases at most the given number of deliveries of each channel for a minute.
async fn lease(world: &World, tx: &mut Tx, now: i64, channels: &[(ChannelId, i64)]) -> Vec<Claimed> {
    let shares: Vec<Share> = channels
        .iter()
        .map(|(channel_id, count)| Share {
            project_id: world.project,
            channel_id: *channel_id,
            count: *count,
        })
        .collect();
    claim::claim(tx, at(now), at(now + 60), &shares).await.unwrap()
}

/// Claims deliveries that are due at `now` with a lease of a minute. Returns (delivery, lease, attempt).
async fn claim(world: &World, now: i64) -> Vec<(DeliveryId, Uuid, i32)> {
    let steps = due(world, now, &[], 100, 100).await;
    let channels: Vec<_> = steps.channels.iter().map(|one| (one.channel_id, 10)).collect();
    let mut tx = world.begin().await;
    let claimed = lease(world, &mut tx, now, &channels).await;
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
    let settled = delivery::settle(&mut tx, world.project, id, lease, settle, at(now))
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
        "the other channel's all-clear waits for its first alert"
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
        "the slow process has lost its lease"
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

    let mine = lease(&world, &mut one, 90, &[(channel, 8)]).await;
    let others = lease(&world, &mut two, 90, &[(channel, 8)]).await;

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
async fn a_step_goes_from_channel_to_channel_and_goes_on_where_it_ended(pool: PgPool) {
    let world = World::new(pool).await;
    let mut channels = Vec::new();
    for name in ["one", "two", "three"] {
        channels.push(world.channel(name).await);
    }
    for channel in &channels {
        for _ in 0..5 {
            world.enqueue(None, Alert::Test, &[*channel]).await;
        }
    }
    channels.sort();
    let found =
        |steps: &Steps| -> Vec<ChannelId> { steps.channels.iter().map(|one| one.channel_id).collect() };

    let all = due(&world, 90, &[], 100, 100).await;
    let enough = due(&world, 90, &[], 100, 2).await;
    let most = due(&world, 90, &[], 1, 100).await;
    let full = due(&world, 90, &[world.project], 100, 100).await;
    let early = due(&world, 0, &[], 2, 100).await;

    assert_eq!((found(&all), all.next), (channels.clone(), None));
    assert_eq!(
        (found(&enough), enough.next),
        (channels[..2].to_vec(), Some((world.project, channels[1])))
    );
    assert_eq!(
        (found(&most), most.next),
        (channels[..1].to_vec(), Some((world.project, channels[0])))
    );
    assert_eq!(
        found(&full),
        channels[..1],
        "the rest of a full project is skipped"
    );
    assert_eq!(
        (found(&early), early.next),
        (Vec::new(), Some((world.project, channels[1]))),
        "nothing is due, and the search still ends"
    );
    let place = enough.next.unwrap();
    let rest = claim::due_channels(&world.store.reader(), at(90), place, &[], 100, 100)
        .await
        .unwrap();
    assert_eq!((found(&rest), rest.next), (channels[2..].to_vec(), None));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn each_channel_gives_its_oldest_up_to_its_share(pool: PgPool) {
    let world = World::new(pool).await;
    let (slow, quick) = (world.channel("slow").await, world.channel("quick").await);
    for _ in 0..9 {
        world.enqueue(None, Alert::Test, &[slow]).await;
    }
    let quick_one = world.enqueue(None, Alert::Test, &[quick]).await;
    let mut tx = world.begin().await;

    let first = lease(&world, &mut tx, 90, &[(slow, 3), (quick, 3)]).await;
    let second = lease(&world, &mut tx, 90, &[(quick, 2), (slow, 2)]).await;

    let of = |claimed: &[Claimed], channel| {
        let ids = claimed.iter().filter(|one| one.channel_id == channel);
        ids.map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!((of(&first, slow).len(), of(&first, quick)), (3, quick_one));
    assert_eq!((of(&second, slow).len(), of(&second, quick).len()), (2, 0));
}

/// A claim reads 200 all-clears of a channel. More of them wait for their first alert, which is retried in an hour.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn alerts_that_wait_for_others_hide_no_new_one(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let monitor = world.monitor("m").await;
    let incident = world.incident(&monitor).await.id;
    let [first] = world.enqueue(Some(incident), Alert::Opened, &[channel]).await[..] else {
        panic!("one delivery")
    };
    // 300 more incidents get the same rows.
    sqlx::query(
        "WITH incidents AS (
            INSERT INTO incident (id, project_id, subject_kind, subject_id, subject_name, cause, summary, evidence, repair, opened_at)
            SELECT gen_random_uuid(), project_id, subject_kind, gen_random_uuid(), subject_name, cause, summary, evidence, repair,
                opened_at
            FROM incident, generate_series(1, 300) RETURNING id
        )
        INSERT INTO delivery (id, project_id, channel_id, incident_id, alert, payload, status, created_at, next_attempt_at, sequence)
        SELECT gen_random_uuid(), project_id, channel_id, incidents.id, told.alert, '{}', 'pending', created_at,
            created_at + told.wait, told.place
        FROM delivery, incidents, (VALUES ('opened', interval '1 hour', 1), ('resolved', interval '0', 2)) AS told (alert, wait, place)",
    )
    .execute(&world.pool)
    .await
    .unwrap();

    let claimed = claim(&world, 90).await;

    assert_eq!(claimed.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [first]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn quotas_are_counted_apart_and_go_when_their_window_ends(pool: PgPool) {
    let world = World::new(pool).await;
    let (tests, confirmations) = (
        Counted::Tests(world.project),
        Counted::Confirmations(world.project),
    );
    let mailbox = Counted::ConfirmationsTo("ops@example.org".to_owned());
    let mut tx = world.begin().await;
    for (counted, now) in [(&tests, 100), (&confirmations, 100), (&mailbox, 101)] {
        let mut allowance = quota::lock(&mut tx, counted, at(now)).await.unwrap();
        assert_eq!(allowance.take(3, 2, counted.window(), at(now)), 2, "{counted:?}");
        quota::write(&mut tx, counted, &allowance).await.unwrap();
    }

    // Each allowance is read as it was written.
    let mut again = quota::lock(&mut tx, &tests, at(159)).await.unwrap();
    assert_eq!((again.used, again.ends_at), (2, at(160)));
    assert_eq!(again.take(1, 2, tests.window(), at(159)), 0);
    // The sweep removes windows that have ended, up to a limit.
    assert_eq!(quota::remove_ended(&mut tx, at(159), 10).await.unwrap(), 0);
    assert_eq!(quota::remove_ended(&mut tx, at(160), 10).await.unwrap(), 1);
    let day_later = at(101 + 86_400);
    assert_eq!(quota::remove_ended(&mut tx, day_later, 1).await.unwrap(), 1);
    let mut fresh = quota::lock(&mut tx, &tests, at(200)).await.unwrap();
    assert_eq!(fresh.take(1, 2, tests.window(), at(200)), 1);
}
