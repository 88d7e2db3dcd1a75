//! The change feed: a reader that polls misses no change.

use std::time::Duration;

use deadbeat_domain::change::feed::{Change, ChangeKind, ChangeSubject, has_missed};
use deadbeat_domain::ids::{ChannelId, MonitorId, ProjectId};
use deadbeat_store::feed::{self, Feed};
use deadbeat_store::{Reader, Store, Tx};
use sqlx::PgPool;
use uuid::Uuid;

use crate::setup::{World, at, insert_project};

/// A longer wait than this is a fault, even on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

fn change(project_id: ProjectId, what: ChangeKind) -> Change {
    Change {
        project_id,
        subject: ChangeSubject::monitor(MonitorId::generate()),
        what,
        at: at(1),
    }
}

/// Returns a transaction that has noted one change.
async fn noting(store: &Store, project: ProjectId, what: ChangeKind) -> Tx {
    let mut tx = store.begin().await.unwrap();
    feed::note(&mut tx, [change(project, what)]);
    tx
}

async fn commit(tx: Tx) {
    tx.commit().await.unwrap();
}

/// A reader that polls and remembers its position, as users of the feed do.
struct Poller {
    reader: Reader,
    project: ProjectId,
    after: i64,
    seen: Vec<(i64, String)>,
}

impl Poller {
    fn new(store: &Store, project: ProjectId) -> Self {
        Self {
            reader: store.reader(),
            project,
            after: 0,
            seen: Vec::new(),
        }
    }

    async fn poll(&mut self) {
        let feed = feed::read(&self.reader, self.project, self.after, 3)
            .await
            .unwrap();
        let next = feed.changes.first().map(|one| one.sequence);
        assert!(
            !has_missed(self.after, feed.newest, next),
            "after {}: {feed:?}",
            self.after
        );
        for one in feed.changes {
            self.after = one.sequence;
            self.seen.push((one.sequence, one.what));
        }
    }
}

/// Waits until this number of transactions wait for a lock.
async fn waiting(world: &World, count: i64) {
    let wait = async {
        while world
            .count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            .await
            < count
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .expect("the transactions wait");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_poller_misses_nothing_of_transactions_that_commit_in_reverse_order(pool: PgPool) {
    let world = World::new(pool).await;
    let mut poller = Poller::new(&world.store, world.project);
    let first = noting(&world.store, world.project, ChangeKind::Created).await;
    let second = noting(&world.store, world.project, ChangeKind::Changed).await;

    commit(second).await;
    poller.poll().await;
    commit(first).await;
    poller.poll().await;

    let seen = [(1, "changed".to_owned()), (2, "created".to_owned())];
    assert_eq!(poller.seen, seen, "in the order of the commits");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_commit_waits_for_one_that_has_its_sequence_and_is_not_visible_yet(pool: PgPool) {
    let world = World::new(pool).await;
    let mut poller = Poller::new(&world.store, world.project);
    // A commit with a creation waits for a lock that the test holds. By then, the transaction has its sequence number.
    for statement in [
        "CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON change DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.what = 'created') EXECUTE FUNCTION hold_up()",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1)")
        .execute(&mut *held)
        .await
        .unwrap();
    let slow = noting(&world.store, world.project, ChangeKind::Created).await;
    let quick = noting(&world.store, world.project, ChangeKind::Changed).await;
    let slow = tokio::spawn(commit(slow));
    waiting(&world, 1).await;

    let quick = tokio::spawn(commit(quick));
    waiting(&world, 2).await;
    poller.poll().await;
    assert_eq!(poller.seen, [], "neither change is visible");
    // Changes of another project do not wait.
    let other = insert_project(&world.store).await;
    commit(noting(&world.store, other, ChangeKind::Changed).await).await;
    held.rollback().await.unwrap();
    slow.await.unwrap();
    quick.await.unwrap();
    poller.poll().await;

    assert_eq!(
        poller.seen,
        [(1, "created".to_owned()), (2, "changed".to_owned())]
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn pollers_beside_many_writers_of_several_projects_see_every_change_once(pool: PgPool) {
    const WRITERS: i64 = 6;
    const COMMITS: i64 = 25;
    let world = World::new(pool).await;
    let mut projects = vec![world.project];
    for _ in 0..2 {
        projects.push(insert_project(&world.store).await);
    }
    let writers: Vec<_> = (0..WRITERS as usize)
        .map(|number| {
            let (store, mut projects) = (world.store.clone(), projects.clone());
            tokio::spawn(async move {
                for round in 0..COMMITS as usize {
                    // Each writer notes changes of all projects in an order of its own. The code locks their rows in one order nevertheless.
                    projects.rotate_left((number + round) % 3);
                    let mut tx = store.begin().await.unwrap();
                    for project in &projects {
                        feed::note(&mut tx, [change(*project, ChangeKind::Status)]);
                        feed::note(&mut tx, [change(*project, ChangeKind::Changed)]);
                    }
                    if (number + round) % 5 == 0 {
                        tx.rollback().await;
                    } else {
                        tx.commit().await.unwrap();
                    }
                }
            })
        })
        .collect();
    let rolled_back = (0..WRITERS)
        .flat_map(|number| (0..COMMITS).map(move |round| number + round))
        .filter(|sum| sum % 5 == 0)
        .count() as i64;
    let all = 2 * (WRITERS * COMMITS - rolled_back);
    let pollers: Vec<_> = projects
        .iter()
        .map(|project| {
            let mut poller = Poller::new(&world.store, *project);
            tokio::spawn(async move {
                while poller.after < all {
                    poller.poll().await;
                }
                poller.seen
            })
        })
        .collect();

    for writer in writers {
        tokio::time::timeout(LIMIT, writer).await.unwrap().unwrap();
    }
    for poller in pollers {
        let seen = tokio::time::timeout(LIMIT, poller).await.unwrap().unwrap();
        let sequences: Vec<i64> = seen.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(sequences, (1..=all).collect::<Vec<i64>>());
        // The changes of one transaction stay together, in their order.
        assert!(
            seen.chunks(2)
                .all(|pair| pair[0].1 == "status" && pair[1].1 == "changed"),
            "{seen:?}"
        );
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_transaction_writes_its_changes_in_one_statement_each_once(pool: PgPool) {
    let world = World::new(pool).await;
    let mut tx = world.begin().await;
    let changes: Vec<Change> = (0..1_000)
        .map(|_| change(world.project, ChangeKind::Status))
        .collect();
    feed::note(&mut tx, changes.iter().copied());
    // The transaction notes the same changes again, and another change of the first subject.
    feed::note(&mut tx, changes.iter().copied());
    let changed = Change {
        what: ChangeKind::Changed,
        ..changes[0]
    };
    feed::note(&mut tx, [changed]);
    commit(tx).await;

    assert_eq!(world.count("SELECT count(*) FROM change").await, 1_001);
    assert_eq!(
        world
            .count("SELECT count(DISTINCT (xmin::text, cmin::text)) FROM change")
            .await,
        1,
        "one statement"
    );
    let Feed {
        newest,
        changes: kept,
    } = feed::read(&world.store.reader(), world.project, 999, 9)
        .await
        .unwrap();
    let ends: Vec<(i64, Uuid, &str)> = kept
        .iter()
        .map(|one| (one.sequence, one.subject_id, one.what.as_str()))
        .collect();
    let (first, last) = (changes[0].subject.id(), changes[999].subject.id());
    assert_eq!(newest, 1_001);
    assert_eq!(ends, [(1_000, last, "status"), (1_001, first, "changed")]);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_is_rolled_back_takes_no_sequence(pool: PgPool) {
    let world = World::new(pool).await;
    let reader = world.store.reader();

    noting(&world.store, world.project, ChangeKind::Changed)
        .await
        .rollback()
        .await;
    drop(noting(&world.store, world.project, ChangeKind::Changed).await);
    // The statement that writes the feed fails, so the whole transaction fails.
    sqlx::query("ALTER TABLE change ADD CONSTRAINT change_refused CHECK (what <> 'deleted')")
        .execute(&world.pool)
        .await
        .unwrap();
    let mut tx = noting(&world.store, world.project, ChangeKind::Deleted).await;
    deadbeat_store::people::project::update(&mut tx, world.project, Some("Renamed"), None)
        .await
        .unwrap();
    let refused = tx.commit().await.unwrap_err();

    assert!(refused.is_constraint("change_refused"), "{refused:?}");
    assert_eq!(feed::newest(&reader, world.project).await.unwrap(), 0);
    let read = feed::read(&reader, world.project, 0, 9).await.unwrap();
    assert_eq!((read.newest, read.changes), (0, Vec::new()));
    assert_eq!(
        world
            .count("SELECT count(*) FROM project WHERE name = 'Renamed'")
            .await,
        0
    );
    commit(noting(&world.store, world.project, ChangeKind::Changed).await).await;
    assert_eq!(feed::newest(&reader, world.project).await.unwrap(), 1);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_deleted_project_takes_its_changes_along_also_those_that_are_being_written(pool: PgPool) {
    let world = World::new(pool).await;
    let other = insert_project(&world.store).await;
    for project in [world.project, other] {
        commit(noting(&world.store, project, ChangeKind::Changed).await).await;
    }
    let monitor = world.monitor("m").await;
    let mut writing = noting(&world.store, world.project, ChangeKind::Status).await;
    deadbeat_store::monitor::lock(&mut writing, world.project, monitor.id)
        .await
        .unwrap()
        .unwrap();
    let (pool, project) = (world.pool.clone(), world.project.0);
    let deleting = tokio::spawn(async move {
        sqlx::query("DELETE FROM project WHERE id = $1")
            .bind(project)
            .execute(&pool)
            .await
            .unwrap();
    });
    waiting(&world, 1).await;

    commit(writing).await;
    tokio::time::timeout(LIMIT, deleting).await.unwrap().unwrap();

    assert_eq!(world.count("SELECT count(*) FROM change").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM change_counter").await, 1);
    assert_eq!(
        feed::newest(&world.store.reader(), other).await.unwrap(),
        1,
        "the other project's changes stay"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn kinds_of_a_newer_server_are_read_as_they_are(pool: PgPool) {
    let world = World::new(pool).await;
    let mut tx = world.begin().await;
    let channel = ChannelId::generate();
    let change = Change {
        subject: ChangeSubject::Channel(channel),
        ..change(world.project, ChangeKind::Created)
    };
    feed::note(&mut tx, [change]);
    commit(tx).await;
    sqlx::query("UPDATE change SET subject_kind = 'team', what = 'renamed'")
        .execute(&world.pool)
        .await
        .unwrap();

    let read = feed::read(&world.store.reader(), world.project, 0, 9)
        .await
        .unwrap();

    let seen: Vec<(&str, Uuid, &str)> = read
        .changes
        .iter()
        .map(|one| (one.subject_kind.as_str(), one.subject_id, one.what.as_str()))
        .collect();
    assert_eq!(seen, [("team", channel.0, "renamed")]);
}
