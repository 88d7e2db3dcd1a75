//! A project can never see or change another project's data (DESIGN 11.4).

use deadbeat_domain::alert::Alert;
use deadbeat_domain::celery::switch::Switch;
use deadbeat_domain::change::feed::{Change, ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{AccountId, ApiKeyId, ProjectId, WorkerId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::monitor::ping::PingKind::{Start, Success};
use deadbeat_domain::monitor::status::Status;
use deadbeat_domain::people::key::Scope;
use deadbeat_store::alert::{attempt, channel, delivery};
use deadbeat_store::celery::worker::queues;
use deadbeat_store::celery::{beat, worker};
use deadbeat_store::monitor::settings;
use deadbeat_store::monitor::{Stateful, ping, run};
use deadbeat_store::page::Page;
use deadbeat_store::people::api_key::ApiKey;
use deadbeat_store::people::{api_key, project};
use deadbeat_store::{feed, incident, monitor};
use serde_json::json;
use sqlx::PgPool;

use crate::setup::{World, at, insert_project, message, new_alert, new_ping, signal};

fn page<K>() -> Page<K> {
    Page {
        after: None,
        limit: 100,
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn nothing_is_read_with_another_projects_id(pool: PgPool) {
    let world = World::new(pool).await;
    let other = insert_project(&world.store).await;
    let mut owned = world.monitor("backup").await;
    owned.state.ping_count = 1;
    let _ = deadbeat_domain::monitor::transition::on_ping(&mut owned.state, &signal(Start, 1));
    let mut stored = new_ping(&owned, Start, 1);
    stored.body = &[1];
    let runs = owned
        .state
        .runs
        .iter()
        .map(|run| (owned.key(), run.clone()))
        .collect();
    let batch = deadbeat_store::monitor::batch::Batch {
        pings: vec![stored],
        runs,
        monitors: vec![owned.changed()],
        moves_check: true,
        writer: None,
    };
    let mut tx = world.begin().await;
    deadbeat_store::monitor::batch::write(&mut tx, &batch)
        .await
        .unwrap();
    beat::lock_or_create(&mut tx, world.project, "shop", 15.0, 60.0, at(0))
        .await
        .unwrap();
    let shops = worker::Worker {
        id: WorkerId::generate(),
        project_id: world.project,
        app: "shop".to_owned(),
        name: "celery@w1".to_owned(),
        snapshot: json!({}),
        queues: vec!["celery".to_owned()],
        progress_at: at(0),
        created_at: at(0),
        incarnations: Vec::new(),
        state: Switch {
            status: Status::Up,
            period_seconds: 5.0,
            grace_seconds: 25.0,
            last_seen_at: Some(at(0)),
            deadline_at: Some(at(30)),
            trouble: None,
            since: None,
        },
    };
    worker::insert(&mut tx, &shops).await.unwrap();
    let change = Change {
        project_id: world.project,
        subject: ChangeSubject::monitor(owned.id),
        what: ChangeKind::Created,
        at: at(0),
    };
    feed::note(&mut tx, [change]);
    tx.commit().await.unwrap();
    let (apps, queues) = ([shops.app.clone()], shops.queues.clone());
    let alerted = world.channel("one").await;
    let open = world.incident(&owned).await;
    let sent = world.enqueue(Some(open.id), Alert::Opened, &[alerted]).await[0];
    let reader = world.store.reader();

    // With its own project's id, each statement finds something; otherwise, the test would prove nothing.
    for (project, finds) in [(world.project, true), (other, false)] {
        let mut tx = world.begin().await;
        let found = [
            monitor::get(&reader, project, owned.id).await.unwrap().is_some(),
            !monitor::list(&reader, project, &monitor::Filter::default(), page(), at(0))
                .await
                .unwrap()
                .is_empty(),
            monitor::counts(&reader, project, at(0)).await.unwrap() != [0; 5],
            !worker::list(
                &reader,
                project,
                Page {
                    after: None,
                    limit: 1,
                },
            )
            .await
            .unwrap()
            .is_empty(),
            !worker::counts(&reader, project).await.unwrap().is_empty(),
            !worker::worst_first(&reader, project, &apps, 9, 9)
                .await
                .unwrap()
                .is_empty(),
            !queues::consumers(&reader, project, &apps, &queues)
                .await
                .unwrap()
                .is_empty(),
            !incident::open_about(&reader, project, &[(SubjectKind::Monitor, owned.id.0)])
                .await
                .unwrap()
                .is_empty(),
            incident::is_open(&mut tx, project, SubjectKind::Monitor, owned.id.0, open.cause)
                .await
                .unwrap(),
            monitor::lock(&mut tx, project, owned.id).await.unwrap().is_some(),
            monitor::lock_by_slug(&mut tx, project, "backup")
                .await
                .unwrap()
                .is_some(),
            !settings::slugs_like(&mut tx, project, "back")
                .await
                .unwrap()
                .is_empty(),
            monitor::count(&mut tx, project).await.unwrap() > 0,
            !channel::for_alerts(&mut tx, &[project]).await.unwrap().is_empty(),
            channel::get(&reader, project, alerted).await.unwrap().is_some(),
            channel::lock(&mut tx, project, alerted).await.unwrap().is_some(),
            !channel::list(&reader, project, page()).await.unwrap().is_empty(),
            channel::count(&mut tx, project).await.unwrap() > 0,
            !ping::list(&reader, project, owned.id, page())
                .await
                .unwrap()
                .is_empty(),
            ping::body(&reader, project, owned.id, 2).await.unwrap().is_some(),
            !run::list(&reader, project, owned.id, page())
                .await
                .unwrap()
                .is_empty(),
            incident::get(&reader, project, open.id).await.unwrap().is_some(),
            !incident::list(&reader, project, &incident::Filter::default(), page())
                .await
                .unwrap()
                .is_empty(),
            !delivery::list(&reader, project, &delivery::Filter::default(), page())
                .await
                .unwrap()
                .is_empty(),
            !beat::list(&reader, project).await.unwrap().is_empty(),
            feed::newest(&reader, project).await.unwrap() > 0,
            feed::read(&reader, project, 0, 100).await.unwrap().newest > 0,
            !feed::read(&reader, project, 0, 100)
                .await
                .unwrap()
                .changes
                .is_empty(),
        ];
        assert_eq!(found, [finds; 28], "{project:?}");
        assert!(attempt::list(&reader, other, sent).await.unwrap().is_empty());
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_entry_is_found_by_its_own_projects_beat_only(pool: PgPool) {
    let world = World::new(pool).await;
    let other = insert_project(&world.store).await;
    let owned = world.monitor("nightly").await;
    let mut tx = world.begin().await;
    let shop = beat::lock_or_create(&mut tx, world.project, "shop", 15.0, 60.0, at(0))
        .await
        .unwrap();
    let namesake = beat::lock_or_create(&mut tx, other, "shop", 15.0, 60.0, at(0))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_ne!(shop.id, namesake.id);
    sqlx::query("UPDATE monitor SET beat_id = $1, entry = 'nightly'")
        .bind(shop.id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let resolve = async |project: ProjectId| {
        let names = ["shop".to_owned()];
        monitor::resolve_entries(&world.store.reader(), project, &names, &["nightly".to_owned()])
            .await
            .unwrap()
    };

    assert_eq!(resolve(world.project).await, [(0, owned.id, owned.ping_id)]);
    assert_eq!(resolve(other).await, []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn nothing_is_changed_with_another_projects_id(pool: PgPool) {
    let world = World::new(pool).await;
    let other = insert_project(&world.store).await;
    let owned = world.monitor("backup").await;
    let alerted = world.channel("one").await;
    let open = world.incident(&owned).await;
    let key = ApiKey {
        id: ApiKeyId::generate(),
        project_id: world.project,
        name: "key".to_owned(),
        scope: Scope::Ping,
        prefix: "dbp_".to_owned(),
        created_at: at(0),
        last_used_at: None,
        last_used_addr: None,
        revoked_at: None,
        limits: deadbeat_domain::people::key_limit::KeyLimits::default(),
        replaced_by: None,
    };
    let mut tx = world.begin().await;
    api_key::insert(&mut tx, &key, &[7; 32]).await.unwrap();
    assert_eq!(
        settings::set_channels(&mut tx, world.project, owned.id, &[alerted])
            .await
            .unwrap(),
        1
    );

    assert!(!monitor::delete(&mut tx, other, owned.id).await.unwrap());
    assert!(!channel::delete(&mut tx, other, alerted).await.unwrap());
    assert!(
        incident::acknowledge(&mut tx, other, open.id, "ops", at(1))
            .await
            .unwrap()
            .is_none()
    );
    assert!(!api_key::revoke(&mut tx, other, key.id, at(1)).await.unwrap());
    assert_eq!(
        settings::set_channels(&mut tx, other, owned.id, &[alerted])
            .await
            .unwrap(),
        0
    );
    let alert = new_alert(other, message(None, Alert::Test), &[alerted]);
    let made = delivery::enqueue(&mut tx, &[alert], at(1)).await.unwrap();
    assert_eq!(made, [], "no message to another project's channel");
    let mut renamed = owned.clone();
    renamed.project_id = other;
    renamed.name = "stolen".to_owned();
    settings::update_settings(&mut tx, &renamed).await.unwrap();
    let mut moved = channel::lock(&mut tx, world.project, alerted)
        .await
        .unwrap()
        .unwrap();
    moved.project_id = other;
    moved.name = "stolen".to_owned();
    channel::update(&mut tx, &moved).await.unwrap();
    tx.commit().await.unwrap();

    let reader = world.store.reader();
    assert_eq!(
        monitor::get(&reader, world.project, owned.id)
            .await
            .unwrap()
            .unwrap()
            .name,
        "backup"
    );
    assert_eq!(
        channel::get(&reader, world.project, alerted)
            .await
            .unwrap()
            .unwrap()
            .name,
        "one"
    );
    assert_eq!(
        settings::channels(&reader, world.project, &[owned.id])
            .await
            .unwrap(),
        [(owned.id, alerted)],
        "the monitor's choice of channels stays"
    );
    assert!(api_key::by_digest(&reader, &[7; 32]).await.unwrap().is_some());
    assert!(api_key::list(&reader, other, page()).await.unwrap().is_empty());
    assert!(
        incident::get(&reader, world.project, open.id)
            .await
            .unwrap()
            .unwrap()
            .acknowledged_at
            .is_none()
    );
    let mut tx = world.begin().await;
    assert!(
        !incident::resolve(
            &mut tx,
            &[((world.project, SubjectKind::Monitor, owned.id.0), at(99))]
        )
        .await
        .unwrap()
        .is_empty()
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn projects_are_listed_for_their_members_only(pool: PgPool) {
    let world = World::new(pool).await;
    insert_project(&world.store).await;
    let stranger = AccountId::generate();

    assert!(
        project::of_account(&world.store.reader(), stranger)
            .await
            .unwrap()
            .is_empty()
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn who_gets_an_alert_is_read_for_its_own_project_only(pool: PgPool) {
    let world = World::new(pool).await;
    let other = insert_project(&world.store).await;
    let (owned, own) = (world.monitor("backup").await, world.channel("own").await);
    let incident = world.incident(&owned).await.id;
    world.enqueue(Some(incident), Alert::Opened, &[own]).await;
    sqlx::query("UPDATE monitor SET all_channels = false")
        .execute(&world.pool)
        .await
        .unwrap();
    let mut tx = world.begin().await;

    for (project, count) in [(world.project, 1), (other, 0)] {
        let alerted = delivery::history(&mut tx, &[(project, incident)], crate::setup::at(0)).await;
        assert_eq!(alerted.unwrap().len(), count);
        let chosen = channel::chosen_by(&mut tx, &[(project, owned.id)]).await;
        assert_eq!(chosen.unwrap().len(), count);
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_of_another_project_is_not_among_those_chosen(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let foreign = World::new(pool).await.channel("foreign").await;
    let owned = world.monitor("backup").await;
    world.ping(&owned, Success, 1).await;
    let mut tx = world.begin().await;

    assert_eq!(
        settings::set_channels(&mut tx, world.project, owned.id, &[foreign])
            .await
            .unwrap(),
        0
    );
    let chosen = channel::chosen_by(&mut tx, &[(world.project, owned.id)]).await;
    assert!(chosen.unwrap().is_empty());
    assert!(
        channel::for_alerts(&mut tx, &[world.project])
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        monitor::get(&world.store.reader(), world.project, owned.id)
            .await
            .unwrap()
            .unwrap()
            .state
            .status,
        Status::Up
    );
}
