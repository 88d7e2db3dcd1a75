//! Every page, opened by each role.

use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::people::role::Role;
use deadbeat_services::people::{account, project};
use reqwest::header::LOCATION;
use reqwest::{Method, Response, StatusCode};
use uuid::Uuid;

use super::{Request, pages, requests};
use crate::contract::things::Things;
use crate::harness::{self, Harness};
use crate::web_dashboard::Browser;

const PASSWORD: &str = "a long password";

/// Makes a new account, and a browser that is signed in with it.
pub async fn browser<'a>(harness: &'a Harness, name: &str) -> (AccountId, Browser<'a>) {
    let email = format!("{name}@example.org");
    let account = account::create(harness.app.services(), &email, PASSWORD)
        .await
        .unwrap();
    let mut browser = Browser::from(harness, "198.51.100.77");
    let answer = browser.sign_in(&email, PASSWORD).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    (account.id, browser)
}

pub async fn set_role(harness: &Harness, project: ProjectId, account: AccountId, role: Role) {
    let mut tx = deadbeat_store::Store::from_pool(harness.pool.clone())
        .begin()
        .await
        .unwrap();
    let now = harness.app.services().now();
    deadbeat_store::people::project::add_member(&mut tx, project, account, role, now)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

pub async fn own_project(harness: &Harness) -> ProjectId {
    let id = harness.get("/api/v1/project").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    ProjectId(Uuid::try_parse(&id).unwrap())
}

/// Returns the path of a page of a project.
fn path(request: &Request, things: &Things, project: ProjectId) -> String {
    let path = things
        .path(&request.path().replace("sessions/{id}", "sessions/made-up"))
        .replace("{code}", "MISSED")
        .replace("{token}", "made-up")
        .replace("{channel}", things.id("channels"));
    format!("{path}?project={project}")
}

fn is_sent_to_sign_in(answer: &Response) -> bool {
    answer.status() == StatusCode::SEE_OTHER && answer.headers()[LOCATION] == "/sign-in"
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_shown_to_each_role_as_the_table_says() {
    let (harness, _clock) = harness::start_at("2026-03-02T01:00:00Z").await;
    let things = Things::make(&harness).await;
    let ping_url = things.monitor["ping_url"].as_str().unwrap();
    let own = own_project(&harness).await;
    let mut members = Vec::new();
    for role in Role::ALL {
        let (account, browser) = browser(&harness, role.as_str()).await;
        set_role(&harness, own, account, role).await;
        members.push((role, browser));
    }
    let (stranger, mut elsewhere) = browser(&harness, "stranger").await;
    let services = harness.app.services();
    project::create(services, "Theirs", Some(stranger)).await.unwrap();
    let (_, mut nowhere) = browser(&harness, "nobody").await;
    let served = pages();

    let mut walked = 0;
    for request in requests()
        .into_iter()
        .filter(|one| served.contains(&one.operation))
    {
        let operation = &request.operation;
        let path = path(&request, &things, own);
        let url = format!("{}{path}", harness.url);
        let anonymous = harness
            .client
            .request(request.method(), &url)
            .send()
            .await
            .unwrap();
        if request.needs_session {
            assert!(is_sent_to_sign_in(&anonymous), "{operation}");
            for (role, browser) in &mut members {
                let answer = browser.send(harness.client.request(request.method(), &url)).await;
                let wanted = if operation.method == "post" {
                    StatusCode::BAD_REQUEST
                } else {
                    StatusCode::OK
                };
                assert_eq!(answer.status(), wanted, "{operation} to {role:?}");
            }
            continue;
        }
        let Some(action) = request.action else {
            assert!(!is_sent_to_sign_in(&anonymous), "{operation}");
            assert_ne!(anonymous.status(), StatusCode::UNAUTHORIZED, "{operation}");
            continue;
        };
        assert!(
            is_sent_to_sign_in(&anonymous),
            "{operation}: {}",
            anonymous.status()
        );
        for (role, browser) in &mut members {
            let request = harness.client.request(request.method(), &url);
            let answer = browser.send(request).await;
            let is_allowed = action.is_of_role(*role);
            let status = if is_allowed {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(answer.status(), status, "{operation} to {role:?}");
            let text = answer.text().await.unwrap();
            let sees =
                path.starts_with("/?") && operation.method == "get" && Action::SeePingUrls.is_of_role(*role);
            assert_eq!(text.contains(ping_url), sees, "{operation} to {role:?}: {text}");
            walked += 1;
        }
        for browser in [&mut elsewhere, &mut nowhere] {
            let request = harness.client.request(request.method(), &url);
            let answer = browser.send(request).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{operation}");
            let text = answer.text().await.unwrap();
            assert!(
                !text.contains("Job") && !text.contains("shop"),
                "{operation}: {text}"
            );
        }
    }
    assert!(walked >= 40, "{walked}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_role_holds_from_the_next_request_on() {
    let (harness, _clock) = harness::start_at("2026-03-02T01:00:00Z").await;
    let things = Things::make(&harness).await;
    let ping_url = things.monitor["ping_url"].as_str().unwrap();
    let own = own_project(&harness).await;
    let (account, mut browser) = browser(&harness, "ada").await;
    let page = format!("/?project={own}");

    for (role, sees) in [(Role::Owner, true), (Role::Viewer, false), (Role::Member, true)] {
        set_role(&harness, own, account, role).await;
        let answer = browser.get(&page).await;
        assert_eq!(answer.status(), StatusCode::OK, "{role:?}");
        assert_eq!(answer.text().await.unwrap().contains(ping_url), sees, "{role:?}");
    }
    sqlx::query("DELETE FROM member WHERE account_id = $1")
        .bind(account.0)
        .execute(&harness.pool)
        .await
        .unwrap();
    assert_eq!(browser.get(&page).await.status(), StatusCode::NOT_FOUND);
    let request = harness
        .client
        .request(Method::HEAD, format!("{}{page}", harness.url));
    assert_eq!(browser.send(request).await.status(), StatusCode::NOT_FOUND);
    harness.stop().await;
}
