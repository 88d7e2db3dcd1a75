//! Export and deletion of an account.

use chrono::TimeDelta;
use deadbeat_services::people::project;
use reqwest::StatusCode;
use reqwest::header::CONTENT_DISPOSITION;
use serde_json::Value;

use super::{ADA, PASSWORD, Town, is_signed_in, session_of, submit, submit_to};
use crate::web_dashboard::{Browser, assert_sends_to};

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_what_is_stored_about_its_owner_and_no_secret() {
    let (town, ada) = Town::with_ada().await;
    let services = town.harness.app.services();
    let eve = town.account("eve@example.org").await;
    project::create(services, "Ada's", Some(ada)).await.unwrap();
    project::create(services, "Eve's", Some(eve)).await.unwrap();
    town.browser("eve@example.org", "198.51.100.66").await;
    let mut browser = town.browser(ADA, "198.51.100.1").await;
    let answer = submit_to(&mut browser, "/account", "/account/export", &[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer.headers()[CONTENT_DISPOSITION]
            .to_str()
            .unwrap()
            .starts_with("attachment")
    );
    let text = answer.text().await.unwrap();
    let data: Value = serde_json::from_str(&text).unwrap();

    assert_eq!(data["account"]["email"], ADA);
    assert_eq!(data["projects"][0]["name"], "Ada's");
    assert_eq!(data["projects"][0]["role"], "owner");
    assert_eq!(data["sessions"][0]["address"], "198.51.100.1");
    assert_eq!(data["known_addresses"][0]["address"], "198.51.100.1");
    assert_eq!(data["events"][0]["action"], "session.began");
    for secret in [
        "argon2",
        &session_of(&browser),
        "Eve",
        "eve@",
        "198.51.100.66",
        "digest",
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    town.clock.advance(TimeDelta::minutes(16));
    let late = submit_to(&mut browser, "/account", "/account/export", &[]).await;
    assert_sends_to(&late, "/account/prove?next=/account");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_owner_of_a_project_cannot_leave_and_others_can() {
    let (town, ada) = Town::with_ada().await;
    let services = town.harness.app.services();
    let eve = town.account("eve@example.org").await;
    let created = project::create(services, "Shared", Some(ada)).await.unwrap();
    let mut browser = town.browser(ADA, "198.51.100.1").await;
    let delete = "/account/delete";
    let wrong = submit(&mut browser, delete, &[("email", "eve@example.org")]).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let alone = submit(&mut browser, delete, &[("email", ADA)]).await;
    assert_eq!(alone.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(alone.text().await.unwrap().contains("only owner of Shared"));
    sqlx::query(
        "INSERT INTO member (project_id, account_id, role, created_at) VALUES ($1, $2, 'owner', now())",
    )
    .bind(created.project.id.0)
    .bind(eve.0)
    .execute(&town.harness.pool)
    .await
    .unwrap();
    let gone = submit(&mut browser, delete, &[("email", " ADA@example.org ")]).await;
    assert_sends_to(&gone, "/sign-in");

    assert!(!is_signed_in(&mut browser).await);
    let mut again = Browser::from(&town.harness, "198.51.100.1");
    assert_eq!(
        again.sign_in(ADA, PASSWORD).await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let entries: Vec<(String, uuid::Uuid)> =
        sqlx::query_as("SELECT action, actor_id FROM audit_entry WHERE project_id = $1")
            .bind(created.project.id.0)
            .fetch_all(&town.harness.pool)
            .await
            .unwrap();
    assert_eq!(
        entries,
        [("member.account_deleted".to_owned(), ada.0)],
        "a pseudonym"
    );
    for (table, count) in [
        ("SELECT count(*) FROM account", 2),
        ("SELECT count(*) FROM account_event", 0),
        ("SELECT count(*) FROM session", 0),
        ("SELECT count(*) FROM known_address", 0),
    ] {
        assert_eq!(town.count(table).await, count, "{table}");
    }
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_that_leave_at_once_one_stays() {
    let (town, ada) = Town::with_ada().await;
    let services = town.harness.app.services();
    let eve = town.account("eve@example.org").await;
    let created = project::create(services, "Shared", Some(ada)).await.unwrap();
    sqlx::query(
        "INSERT INTO member (project_id, account_id, role, created_at) VALUES ($1, $2, 'owner', now())",
    )
    .bind(created.project.id.0)
    .bind(eve.0)
    .execute(&town.harness.pool)
    .await
    .unwrap();
    let mut one = town.browser(ADA, "198.51.100.1").await;
    let mut two = town.browser("eve@example.org", "198.51.100.2").await;

    let (first, second) = futures::future::join(
        submit(&mut one, "/account/delete", &[("email", ADA)]),
        submit(&mut two, "/account/delete", &[("email", "eve@example.org")]),
    )
    .await;

    let mut statuses = [first.status(), second.status()];
    statuses.sort();
    assert_eq!(
        statuses,
        [StatusCode::SEE_OTHER, StatusCode::UNPROCESSABLE_ENTITY]
    );
    assert_eq!(
        town.count("SELECT count(*) FROM member WHERE role = 'owner' AND project_id <> (SELECT id FROM project ORDER BY created_at, id LIMIT 1)")
            .await,
        1
    );
    town.stop().await;
}
