//! Constraints that the tables enforce, whichever code writes.

use deadbeat_domain::alert::Alert;
use deadbeat_domain::change::{Transition, Trigger};
use deadbeat_domain::ids::{IncidentId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::Tx;
use deadbeat_store::alert::{channel, delivery};
use deadbeat_store::incident::{self, Incident};
use deadbeat_store::monitor::transition::{self, NewTransition};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, at, message, new_alert};

async fn open(tx: &mut Tx, one: &Incident) -> Vec<IncidentId> {
    incident::open(tx, std::slice::from_ref(one)).await.unwrap()
}

/// Runs a statement about one monitor and returns the constraint that refused it.
async fn refused_by(world: &World, statement: &'static str, id: Uuid) -> Option<String> {
    let error = sqlx::query(statement).bind(id).execute(&world.pool).await.err()?;
    error.as_database_error()?.constraint().map(str::to_owned)
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_subject_has_one_open_incident_whoever_opens_it(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    let (first, second) = (
        world.an_incident(SubjectKind::Monitor, monitor.id.0),
        world.an_incident(SubjectKind::Monitor, monitor.id.0),
    );
    let (mut one, mut two) = (world.begin().await, world.begin().await);

    assert_eq!(open(&mut one, &first).await, [first.id]);
    // The second transaction waits for the first one to commit, and then finds its incident.
    let (opened, ()) = tokio::join!(open(&mut two, &second), async { one.commit().await.unwrap() });
    assert_eq!(opened, []);
    let over = |kind| [((world.project, kind, monitor.id.0), at(100))];
    let resolved = incident::resolve(&mut two, &over(SubjectKind::Monitor))
        .await
        .unwrap();
    let resolved: Vec<_> = resolved
        .iter()
        .map(|row| row.as_ref().unwrap())
        .map(|incident| (incident.id, incident.remind_at))
        .collect();
    assert_eq!(resolved, [(first.id, None)]);
    assert_eq!(
        open(&mut two, &second).await,
        [second.id],
        "after the end of the first incident"
    );
    let none = incident::resolve(&mut two, &over(SubjectKind::Beat)).await;
    assert!(none.unwrap().is_empty());
    two.commit().await.unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_never_ends_before_it_began(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("m").await;
    world.incident(&monitor).await;
    let mut tx = world.begin().await;

    // The ping arrived before the deadline, and was written after the verdict.
    let resolved = incident::resolve(
        &mut tx,
        &[((world.project, SubjectKind::Monitor, monitor.id.0), at(89))],
    )
    .await
    .unwrap();

    let resolved = resolved[0].as_ref().unwrap();
    assert_eq!(resolved.resolved_at, Some(resolved.opened_at));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_would_be_a_lie_is_refused_by_name(pool: PgPool) {
    let world = World::new(pool).await;
    let id = world.monitor("m").await.id.0;
    let table = [
        ("UPDATE monitor SET check_after = deadline_at + interval '1 second' WHERE id = $1", "monitor_check_after"),
        ("UPDATE monitor SET status = 'late' WHERE id = $1", "monitor_status"),
        ("UPDATE monitor SET slug = '' WHERE id = $1", "monitor_slug_length"),
        ("UPDATE monitor SET grace_seconds = -1 WHERE id = $1", "monitor_grace"),
        ("UPDATE monitor SET longest_run_seconds = 0 WHERE id = $1", "monitor_longest_run"),
        (
            "INSERT INTO run (id, monitor_id, status, retries) VALUES (gen_random_uuid(), $1, 'open', 0)",
            "run_open_has_start",
        ),
        (
            "INSERT INTO run (id, monitor_id, status, retries) VALUES (gen_random_uuid(), $1, 'success', 0)",
            "run_closed_has_end",
        ),
        (
            "INSERT INTO run (id, monitor_id, status, started_at, deadline_at, retries)
            SELECT gen_random_uuid(), $1, 'open', now(), now(), 0 FROM generate_series(1, 2)",
            "run_open",
        ),
        (
            "INSERT INTO transition (id, project_id, subject_kind, subject_id, from_status, to_status, cause, at)
            SELECT gen_random_uuid(), project_id, 'monitor', id, 'down', 'down', 'MISSED', now() FROM monitor WHERE id = $1",
            "transition_changes",
        ),
        (
            "INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes)
            VALUES ($1, 1, now(), 'tick', 'http', 0)",
            "ping_kind",
        ),
    ];
    for (statement, constraint) in table {
        assert_eq!(
            refused_by(&world, statement, id).await.as_deref(),
            Some(constraint),
            "{statement}"
        );
    }
    // The index on the table of a day has its own name.
    let twice = refused_by(
        &world,
        "INSERT INTO ping (monitor_id, n, received_at, kind, source, body_bytes)
        SELECT $1, 1, now(), 'log', 'http', 0 FROM generate_series(1, 2)",
        id,
    );
    assert!(twice.await.is_some_and(|name| name.starts_with("ping_")));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_slug_is_taken_once_a_project(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("backup").await;
    let mut tx = world.begin().await;
    let mut twin = monitor.clone();
    twin.id = deadbeat_domain::ids::MonitorId::generate();
    twin.ping_id = deadbeat_domain::ids::PingId::generate();

    let refused = deadbeat_store::monitor::insert(&mut tx, &[&twin])
        .await
        .unwrap_err();

    assert!(refused.is_constraint("monitor_slug_unique"), "{refused:?}");
    drop(tx);
    twin.project_id = ProjectId(crate::setup::insert_project(&world.store).await.0);
    let mut tx = world.begin().await;
    deadbeat_store::monitor::insert(&mut tx, &[&twin]).await.unwrap();
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_belongs_to_a_deleted_project_goes_with_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (channel, other) = (world.channel("one").await, world.channel("two").await);
    let monitor = world.monitor("m").await;
    let incident = world.incident(&monitor).await;
    for alert in [Alert::Opened, Alert::Resolved] {
        world.enqueue(Some(incident.id), alert, &[channel, other]).await;
    }
    world.enqueue(None, Alert::Test, &[channel]).await;
    let mut tx = world.begin().await;
    let transition = NewTransition {
        project_id: world.project,
        subject_kind: SubjectKind::Monitor,
        subject_id: monitor.id.0,
        transition: Transition {
            from: Status::Up,
            to: Status::Down,
            trigger: Trigger::Trouble(Cause::Missed),
            at: at(90),
        },
    };
    transition::insert(&mut tx, &[transition]).await.unwrap();
    assert!(channel::delete(&mut tx, world.project, other).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM delivery").await, 3);

    sqlx::query("DELETE FROM project WHERE id = $1")
        .bind(world.project.0)
        .execute(&world.pool)
        .await
        .unwrap();

    for question in [
        "SELECT count(*) FROM delivery",
        "SELECT count(*) FROM incident",
        "SELECT count(*) FROM transition",
        "SELECT count(*) FROM channel",
        "SELECT count(*) FROM monitor",
    ] {
        assert_eq!(world.count(question).await, 0, "{question}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_alert_that_is_being_written_to_a_deleted_channel_goes_with_it(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let (mut incident_alert, mut deleting) = (world.begin().await, world.begin().await);
    let alert = new_alert(world.project, message(None, Alert::Test), &[channel]);
    assert_eq!(
        delivery::enqueue(&mut incident_alert, &[alert], at(90))
            .await
            .unwrap()
            .len(),
        1
    );

    let (deleted, ()) = tokio::join!(
        async {
            let deleted = channel::delete(&mut deleting, world.project, channel)
                .await
                .unwrap();
            deleting.commit().await.unwrap();
            deleted
        },
        async { incident_alert.commit().await.unwrap() }
    );

    assert!(deleted);
    assert_eq!(world.count("SELECT count(*) FROM delivery").await, 0);
}
