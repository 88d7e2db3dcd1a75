//! Rotations of keys, including interrupted ones.

use super::*;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_rotation_that_was_broken_off_goes_on_while_servers_deliver(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    for number in 0..450 {
        world.hook(&receiver.url(&format!("/hooks/{number}"))).await;
    }
    let counts = || async {
        let keys = world.keys().await;
        let new = keys
            .iter()
            .filter(|key| key.as_deref() == Some(&id(&both())))
            .count();
        (keys.len() - new, new)
    };

    // The process is killed after its first batch: the test drops the future in the middle.
    let store = world.store();
    let first = Arc::new(tokio::sync::Notify::new());
    let ring = both();
    let rotating = rotation::rotate(&store, &ring, false, world.now(), |_| first.notify_one());
    tokio::select! {
        biased;
        () = first.notified() => {}
        _ = rotating => panic!("it was to be broken off"),
    }
    let (old, new) = counts().await;
    assert!(old > 0 && new > 0, "{old} and {new}");
    // Servers with both keys open all channels, whichever key comes first.
    let two_ways = Keyring::load(&format!("{},{}", "07".repeat(32), "08".repeat(32)), None).unwrap();
    let channels: Vec<ChannelId> = sqlx::query_scalar("SELECT id FROM channel ORDER BY id")
        .fetch_all(&world.pool)
        .await
        .unwrap()
        .into_iter()
        .map(ChannelId)
        .collect();
    for (ring, channel) in [(two_ways, channels[0]), (both(), channels[449])] {
        let url = world.opens(&ring, world.project, channel).await.unwrap();
        assert!(url.contains("/hooks/"), "{url}");
    }
    // Meanwhile, a server that still has the old order seals with the old key.
    world.hook(&receiver.url("/hooks/late")).await;

    let mut seen = Vec::new();
    let rotated = rotation::rotate(&store, &both(), false, world.now(), |progress| {
        seen.push(progress)
    })
    .await
    .unwrap();
    let again = rotation::rotate(&store, &both(), false, world.now(), |_| {})
        .await
        .unwrap();

    assert_eq!(
        (rotated.sealed, rotated.unopened),
        (i64::try_from(old).unwrap() + 1, vec![])
    );
    assert_eq!(
        seen.last().map(|last| (last.sealed, last.total)),
        Some((rotated.sealed, rotated.sealed))
    );
    assert_eq!((again.sealed, counts().await), (0, (0, 451)));
    // With the old key alone, a server opens nothing, and its error names the missing key.
    let fault = world
        .opens(&keyring(), world.project, channels[0])
        .await
        .unwrap_err();
    assert!(fault.contains(&id(&both())), "{fault}");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_rotation_of_the_file_makes_one_new_key_and_running_servers_find_it(pool: PgPool) {
    let world = World::new(pool).await;
    let folder = tempfile::tempdir().unwrap();
    let load = || Keyring::load("", Some(folder.path().join(FILE))).unwrap();
    let running = load();
    make_first_key(&world.store(), &running, world.now())
        .await
        .unwrap();
    let services: Services = world.services.clone().with_keyring(running.clone());
    let receiver = Receiver::start().await;
    let settings = json!({"url": receiver.url("/hooks/0123456789")});
    let hook = channel::create(&services, &world.access, "webhook", "Hook", &settings)
        .await
        .unwrap()
        .channel
        .id;
    let old = id(&running);

    // The process is killed after it wrote the new key to the file, and before it sealed the first row. The next run makes no third key.
    drop(rotation::prepare(&world.store(), &load(), false).await.unwrap());
    let ring = load();
    let lock = rotation::prepare(&world.store(), &ring, false).await.unwrap();
    assert_eq!(ring.ids().len(), 2);
    rotation::rotate(&world.store(), &ring, false, world.now(), |_| {})
        .await
        .unwrap();
    drop(lock);

    assert_eq!(world.keys().await, [Some(id(&ring))]);
    assert_ne!(id(&ring), old);
    channel::send_test(&services, &world.access, hook).await.unwrap();
    world.deliverer(running.clone()).deliver_once().await.unwrap();
    assert_eq!(receiver.requests()[0].path, "/hooks/0123456789");
    channel::create(&services, &world.access, "webhook", "New", &settings)
        .await
        .unwrap();
    assert_eq!(world.keys().await, vec![Some(id(&ring)); 2]);
    // The rotation is complete, so the next one makes a new key.
    let next = load();
    drop(rotation::prepare(&world.store(), &next, false).await.unwrap());
    assert_eq!(next.ids().len(), 3);
}
