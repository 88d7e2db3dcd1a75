//! Invitations: a link makes one member, once, while it holds and its maker may invite.

use chrono::TimeDelta;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::role::Role;
use deadbeat_services::people::invitation::{self, NewInvitation};
use deadbeat_services::people::{api_key, member};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::pages::{browser, own_project, set_role};
use crate::contract::Caller;
use crate::harness::{self, Harness};
use crate::web_dashboard::{Browser, form_token};

async fn invite(caller: &Caller<'_>, body: Value) -> (String, String) {
    let made = caller.post("/api/v1/invitations", &body).await;
    let url = made["url"].as_str().unwrap();
    let path = url[url.find("/invitations/").unwrap()..].to_owned();
    (made["id"].as_str().unwrap().to_owned(), path)
}

/// Opens the link and posts its form. Returns the status of the post, or of the page if the link does not open.
async fn join(browser: &mut Browser<'_>, path: &str) -> StatusCode {
    let page = browser.get(path).await;
    if page.status() != StatusCode::OK {
        return page.status();
    }
    let token = form_token(&page.text().await.unwrap());
    browser.post(path, &[("form_token", &token)]).await.status()
}

async fn count(harness: &Harness) -> usize {
    Caller::new(harness).pages("/api/v1/members", 50).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_makes_one_member_once() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    caller
        .json(Method::PATCH, "/api/v1/project", &json!({"name": "<b>Shop</b>"}))
        .await;
    let (_, mut ada) = browser(&harness, "ada").await;
    let (_, mut bob) = browser(&harness, "bob").await;
    let (_, path) = invite(&caller, json!({"role": "member"})).await;
    let listed = caller.get("/api/v1/invitations").await;
    assert_eq!(listed["invitations"].as_array().unwrap().len(), 1);
    let token = path.rsplit('/').next().unwrap();
    assert!(
        !listed.to_string().contains(token),
        "only the first answer has the link"
    );
    let stored: String = sqlx::query_scalar("SELECT string_agg(invitation::text, '') FROM invitation")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert!(!stored.contains(token), "the token is stored");

    // Somebody who is not signed in sees the offer, and cannot accept it.
    let anonymous = harness
        .client
        .get(format!("{}{path}", harness.url))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.headers()["referrer-policy"], "no-referrer");
    assert_eq!(anonymous.headers()["cache-control"], "no-store");
    let text = anonymous.text().await.unwrap();
    assert!(text.contains("/sign-in") && !text.contains("<b>Shop"), "{text}");
    let forged = ada.post(&path, &[("form_token", "x")]).await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    assert_eq!(count(&harness).await, 1);

    assert_eq!(join(&mut ada, &path).await, StatusCode::SEE_OTHER);

    for browser in [&mut ada, &mut bob] {
        assert_eq!(join(browser, &path).await, StatusCode::NOT_FOUND, "a replay");
    }
    assert_eq!(count(&harness).await, 2);
    let entries = caller
        .get("/api/v1/audit-entries?action=invitation.accepted")
        .await;
    assert_eq!(entries["audit_entries"][0]["actor"]["name"], "ada@example.org");
    assert!(!entries.to_string().contains(token));
    let again = invite(&caller, json!({"role": "viewer"})).await.1;
    assert_eq!(
        join(&mut ada, &again).await,
        StatusCode::CONFLICT,
        "a member already"
    );
    assert_eq!(
        join(&mut bob, &again).await,
        StatusCode::SEE_OTHER,
        "the refusal left it"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_only_while_it_holds() {
    let (harness, clock) = harness::start_at("2026-03-02T01:00:00Z").await;
    let caller = Caller::new(&harness);
    let own = own_project(&harness).await;
    let services = harness.app.services();
    let (admin, _) = browser(&harness, "admin").await;
    set_role(&harness, own, admin, Role::Admin).await;
    let (_, mut ada) = browser(&harness, "ada").await;
    let viewer = |email: Option<&str>| NewInvitation {
        email: email.map(str::to_owned),
        role: Role::Viewer,
        seconds: Some(3_600),
    };
    let path = |link: String| link[link.find("/invitations/").unwrap()..].to_owned();

    // Of another address.
    let (_, other) = invite(&caller, json!({"role": "viewer", "email": "Eve@Example.org"})).await;
    assert_eq!(join(&mut ada, &other).await, StatusCode::CONFLICT);
    // Withdrawn.
    let (id, withdrawn) = invite(&caller, json!({"role": "viewer"})).await;
    let at = format!("/api/v1/invitations/{id}");
    let (other_key, _) = harness.other_project().await;
    let theirs = Caller::with_key(&harness, &other_key)
        .call(Method::DELETE, &at)
        .await;
    assert_eq!(theirs.status, StatusCode::NOT_FOUND);
    assert_eq!(
        caller.call(Method::DELETE, &at).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        caller.call(Method::DELETE, &at).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(join(&mut ada, &withdrawn).await, StatusCode::NOT_FOUND);
    // Of an admin who may not invite any more.
    let access = Access::new(
        own,
        Actor::Account {
            id: admin,
            role: Role::Admin,
        },
    );
    let (_, link) = invitation::create(services, &access, viewer(None)).await.unwrap();
    let operator = Access::new(own, Actor::Operator);
    member::set_role(services, &operator, admin, Role::Member)
        .await
        .unwrap();
    assert_eq!(join(&mut ada, &path(link)).await, StatusCode::NOT_FOUND);
    // Of a key that was revoked.
    let key = api_key::issue(
        services,
        &operator,
        "inviter",
        deadbeat_domain::people::key::Scope::Write,
    );
    let (key, secret) = key.await.unwrap();
    let (_, by_key) = invite(&Caller::with_key(&harness, &secret), json!({"role": "viewer"})).await;
    api_key::revoke(services, &operator, key.id).await.unwrap();
    assert_eq!(join(&mut ada, &by_key).await, StatusCode::NOT_FOUND);
    // Of a key that ends meanwhile.
    let ending = json!({"name": "ending", "scope": "write", "expires_at": "2026-03-02T01:30:00Z"});
    let ending = caller.post("/api/v1/api-keys", &ending).await;
    let ending = Caller::with_key(&harness, ending["key"].as_str().unwrap());
    let (_, by_ended) = invite(&ending, json!({"role": "viewer"})).await;
    // Expired.
    let (_, expired) = invite(&caller, json!({"role": "viewer", "expires_in_seconds": 3600})).await;
    clock.advance(TimeDelta::seconds(3_600));
    assert_eq!(join(&mut ada, &by_ended).await, StatusCode::NOT_FOUND);
    assert_eq!(join(&mut ada, &expired).await, StatusCode::NOT_FOUND);
    for bad in [
        "/invitations/x",
        "/invitations/%00",
        &format!("/invitations/{}", "a".repeat(43)),
    ] {
        assert_eq!(join(&mut ada, bad).await, StatusCode::NOT_FOUND, "{bad}");
    }

    // The right address, and a link that holds.
    let (_, link) = invitation::create(services, &operator, viewer(Some(" ADA@example.org ")))
        .await
        .unwrap();
    assert_eq!(join(&mut ada, &path(link)).await, StatusCode::SEE_OTHER);
    assert_eq!(count(&harness).await, 3);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_accept_at_the_same_moment_one_becomes_a_member() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let own: ProjectId = own_project(&harness).await;
    let mut accounts = Vec::new();
    for name in ["ada", "bob", "eve"] {
        let email = format!("{name}@example.org");
        let made = deadbeat_services::people::account::create(services, &email, "a long password");
        accounts.push(made.await.unwrap());
    }
    for round in 0..5 {
        let operator = Access::new(own, Actor::Operator);
        let new = NewInvitation {
            email: None,
            role: Role::Viewer,
            seconds: None,
        };
        let (_, link) = invitation::create(services, &operator, new).await.unwrap();
        let token = link.rsplit('/').next().unwrap();
        let before = count(&harness).await;

        // Each account accepts twice.
        let tries = accounts.iter().chain(&accounts).map(|account| {
            let (services, account, token) = (services.clone(), account.clone(), token.to_owned());
            tokio::spawn(async move { invitation::accept(&services, &account, &token, None).await })
        });
        let results = futures::future::join_all(tries.collect::<Vec<_>>()).await;

        let accepted = results.iter().filter(|one| one.as_ref().unwrap().is_ok()).count();
        assert_eq!(accepted, 1, "round {round}: {results:?}");
        assert_eq!(count(&harness).await, before + 1, "round {round}");
        for account in &accounts {
            let removed = member::remove(services, &operator, account.id).await;
            assert!(removed.is_ok() || matches!(removed, Err(deadbeat_services::ServiceError::NotFound(_))));
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_invitations_are_refused_and_their_number_is_bounded() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    for (body, status) in [
        (json!({}), 400),
        (json!({"role": "boss"}), 400),
        (json!({"role": "owner"}), 403),
        (json!({"role": "viewer", "email": "nobody"}), 400),
        (json!({"role": "viewer", "email": "a\u{0}@example.org"}), 400),
        (json!({"role": "viewer", "email": null}), 400),
        (json!({"role": "viewer", "expires_in_seconds": 3599}), 400),
        (json!({"role": "viewer", "expires_in_seconds": 2_592_001}), 400),
        (json!({"role": "viewer", "expires_in_seconds": i64::MAX}), 400),
        (json!({"role": "viewer", "project": "x"}), 400),
    ] {
        let answer = caller.json(Method::POST, "/api/v1/invitations", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.json);
    }
    let read = Caller::with_key(&harness, &harness.read_key);
    let refused = read
        .json(Method::POST, "/api/v1/invitations", &json!({"role": "viewer"}))
        .await;
    assert_eq!(refused.code(), "key_scope");
    for _ in 0..deadbeat_domain::limits::PROJECT_INVITATIONS {
        invite(&caller, json!({"role": "viewer"})).await;
    }
    let one_more = caller
        .json(Method::POST, "/api/v1/invitations", &json!({"role": "viewer"}))
        .await;
    assert_eq!(one_more.code(), "limit_reached");
    harness.stop().await;
}
