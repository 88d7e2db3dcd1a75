//! Tests which severity an incident gets.

use deadbeat_domain::incident::severity::Severity;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::monitor::{self, Change};
use deadbeat_store::incident::{Filter, Incident, list};
use deadbeat_store::page::Page;
use sqlx::PgPool;

use crate::setup::World;

async fn newest(world: &World) -> Incident {
    let page = Page {
        after: None,
        limit: 1,
    };
    let found = list(&world.services.reader(), world.project, &Filter::default(), page).await;
    found.unwrap().remove(0)
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitors_severity_replaces_the_one_of_the_cause_when_an_incident_opens(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("ops").await;
    let plain = world.monitor("plain").await;
    let urgent = Change {
        severity: Some(Some(Severity::Critical)),
        ..Change::default()
    };
    let vital = world.monitor_with("vital", urgent).await;

    world.ping(&plain, Fail).await;
    assert_eq!(newest(&world).await.severity, Severity::Warning);
    world.ping(&vital, Fail).await;
    assert_eq!(newest(&world).await.severity, Severity::Critical);
    let lower = Change {
        severity: Some(Some(Severity::Info)),
        ..Change::default()
    };
    monitor::update(&world.services, &world.access, vital.id, &lower)
        .await
        .unwrap();

    assert_eq!(
        newest(&world).await.severity,
        Severity::Critical,
        "an open incident keeps its severity"
    );
    let alerted: Vec<String> =
        sqlx::query_scalar("SELECT payload #>> '{incident,severity}' FROM delivery ORDER BY sequence")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(alerted, ["warning", "critical"]);
    world.ping(&vital, Success).await;
    world.ping(&vital, Fail).await;
    assert_eq!(newest(&world).await.severity, Severity::Info);
    let back = Change {
        severity: Some(None),
        ..Change::default()
    };
    monitor::update(&world.services, &world.access, vital.id, &back)
        .await
        .unwrap();
    world.ping(&vital, Success).await;
    world.ping(&vital, Fail).await;
    assert_eq!(newest(&world).await.severity, Severity::Warning);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_of_old_code_has_the_severity_of_its_cause(pool: PgPool) {
    let world = World::new(pool).await;
    let monitor = world.monitor("plain").await;
    world.ping(&monitor, Fail).await;
    sqlx::query("UPDATE incident SET severity = NULL, cause = 'BEAT_DOWN'")
        .execute(&world.pool)
        .await
        .unwrap();

    assert_eq!(newest(&world).await.severity, Severity::Critical);
}
