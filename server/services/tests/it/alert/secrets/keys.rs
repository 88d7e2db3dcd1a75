//! A key that is missing, lost permanently, or different from the other servers' key.

use super::*;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn without_its_key_a_channel_waits_and_says_so_and_judgement_goes_on(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let hook = world.hook(&receiver.url("/hooks/0123456789")).await;
    let lost = other_ring();
    let reason = format!("cannot be opened: key {} is missing", id(&keyring()));

    // Pings and verdicts need no key.
    let monitor = world.monitor("backup").await;
    world.ping(&monitor, Fail).await;
    let progress = world.deliverer(lost.clone()).deliver_once().await.unwrap();
    world.keeper(&lost).pass_once().await.unwrap();

    assert_eq!(
        (progress.claimed, progress.sent, receiver.requests().len()),
        (1, 0, 0)
    );
    assert_eq!(world.details().await, [Some(format!("the channel {reason}"))]);
    assert_eq!(world.opens(&lost, world.project, hook).await, Err(reason.clone()));
    assert_eq!(
        lost.missing(),
        [MissingKey {
            id: id(&keyring()),
            channels: 1
        }]
    );
    let disabled: bool = sqlx::query_scalar("SELECT disabled_at IS NOT NULL FROM channel")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(!disabled, "the channel is not at fault");
    // This server seals nothing with a key that the other servers lack. A change of the name needs no key.
    let services = world.services.clone().with_keyring(lost.clone());
    let create = json!({"url": "https://example.org/new"});
    let refused = channel::create(&services, &world.access, "webhook", "New", &create).await;
    assert!(
        matches!(&refused, Err(ServiceError::KeyMissing(text)) if text.contains(&id(&keyring()))),
        "{refused:?}"
    );
    channel::update(&services, &world.access, hook, Some("Renamed"), None)
        .await
        .unwrap();
    let kept = channel::update(&services, &world.access, hook, None, Some(&json!({}))).await;
    assert!(
        matches!(&kept, Err(ServiceError::Conflict(text)) if text.contains(&reason) && text.contains("settings.url")),
        "{kept:?}"
    );

    // After the key is restored, Deadbeat sends the alert.
    world.clock.advance(chrono::TimeDelta::hours(1));
    world.deliverer(keyring()).deliver_once().await.unwrap();
    assert_eq!(receiver.requests()[0].path, "/hooks/0123456789");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_key_that_is_lost_for_good_is_given_up_and_the_secrets_are_entered_again(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let hook = world.hook(&receiver.url("/hooks/0123456789")).await;
    let ring = other_ring();
    let services = world.services.clone().with_keyring(ring.clone());

    let refused = rotation::rotate(&world.store(), &ring, false, world.now(), |_| {}).await;
    assert!(
        matches!(&refused, Err(RotationError::Missing { id: key, channels: 1 }) if *key == id(&keyring())),
        "{refused:?}"
    );
    let rotated = rotation::rotate(&world.store(), &ring, true, world.now(), |_| {})
        .await
        .unwrap();
    assert_eq!(
        (rotated.key, rotated.unopened),
        (id(&ring), vec![(id(&keyring()), 1)])
    );
    let again = json!({"url": receiver.url("/hooks/again")});
    let written = channel::update(&services, &world.access, hook, None, Some(&again))
        .await
        .unwrap();

    assert!(
        written.signing_secret.unwrap().0.starts_with("whsec_"),
        "a new secret, shown once"
    );
    channel::send_test(&services, &world.access, hook).await.unwrap();
    world.deliverer(ring.clone()).deliver_once().await.unwrap();
    assert_eq!(receiver.requests()[0].path, "/hooks/again");
    assert_eq!(world.keys().await, [Some(id(&ring))]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_servers_that_make_a_key_each_do_not_both_seal(pool: PgPool) {
    let world = World::new(pool).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let rings: Vec<Keyring> = folders
        .iter()
        .map(|folder| Keyring::load("", Some(folder.path().join(FILE))).unwrap())
        .collect();
    // Each server makes a file before either has written to the database.
    rings.iter().for_each(|ring| ring.make_file().unwrap());
    let store = world.store();
    let (one, other) = tokio::join!(
        make_first_key(&store, &rings[0], world.now()),
        make_first_key(&store, &rings[1], world.now())
    );
    one.unwrap();
    other.unwrap();

    let mut made = Vec::new();
    for ring in &rings {
        let services = world.services.clone().with_keyring(ring.clone());
        let settings = json!({"url": "https://example.org/"});
        made.push(channel::create(&services, &world.access, "webhook", "Hook", &settings).await);
        world.keeper(ring).pass_once().await.unwrap();
    }

    let agreed: String = sqlx::query_scalar("SELECT key_id FROM sealing_key")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let (winner, loser) = if id(&rings[0]) == agreed { (0, 1) } else { (1, 0) };
    assert!(made[winner].is_ok());
    assert!(
        matches!(&made[loser], Err(ServiceError::KeyMissing(text)) if text.contains(&agreed)),
        "{:?}",
        made[loser]
    );
    assert_eq!(
        (rings[winner].missing().len(), rings[loser].missing().len()),
        (0, 1)
    );
    // A server that starts after the servers agreed on a key makes no key of its own.
    let folder = tempfile::tempdir().unwrap();
    let late = Keyring::load("", Some(folder.path().join(FILE))).unwrap();
    make_first_key(&store, &late, world.now()).await.unwrap();
    assert!(late.first().is_none() && !folder.path().join(FILE).exists());
    world.keeper(&late).pass_once().await.unwrap();
    assert_eq!(late.missing()[0].id, agreed);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn without_any_key_nothing_is_added_and_what_stands_in_clear_is_delivered(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let url = receiver.url("/hooks/0123456789");
    let hook = world.hook(&url).await;
    world.unseal(hook, &url).await;
    sqlx::query("DELETE FROM sealing_key")
        .execute(&world.pool)
        .await
        .unwrap();
    let services = world.services.clone().with_keyring(Keyring::default());

    let refused = channel::create(&services, &world.access, "webhook", "New", &json!({"url": url})).await;
    channel::send_test(&services, &world.access, hook).await.unwrap();
    world.deliverer(Keyring::default()).deliver_once().await.unwrap();
    let passed = world.keeper(&Keyring::default()).pass_once().await.unwrap();

    assert!(matches!(refused, Err(ServiceError::KeyMissing(_))), "{refused:?}");
    assert_eq!(
        (receiver.requests().len(), passed),
        (1, Passed { sealed: 0, left: 1 })
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_file_is_made_anew_only_when_the_loss_is_accepted(pool: PgPool) {
    let world = World::new(pool).await;
    world.hook("https://example.org/hooks/0123456789").await;
    let folder = tempfile::tempdir().unwrap();
    let ring = Keyring::load("", Some(folder.path().join(FILE))).unwrap();
    let store = world.store();

    make_first_key(&store, &ring, world.now()).await.unwrap();
    drop(rotation::prepare(&store, &ring, false).await.unwrap());
    let refused = rotation::rotate(&store, &ring, false, world.now(), |_| {}).await;
    assert!(ring.first().is_none() && matches!(refused, Err(RotationError::Missing { .. })));
    let lock = rotation::prepare(&store, &ring, true).await.unwrap();
    let rotated = rotation::rotate(&store, &ring, true, world.now(), |_| {})
        .await
        .unwrap();
    drop(lock);

    assert_eq!((rotated.key, rotated.unopened.len()), (id(&ring), 1));
    let services = world.services.clone().with_keyring(ring);
    let settings = json!({"url": "https://example.org/"});
    channel::create(&services, &world.access, "webhook", "New", &settings)
        .await
        .unwrap();
}
