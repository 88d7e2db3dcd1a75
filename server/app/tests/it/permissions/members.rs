//! Members, by the API and by accounts: roles below one's own, a project that never loses its last owner, and the project that pages remember.

use deadbeat_domain::ids::{AccountId, ProjectId};
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::role::Role;
use deadbeat_services::ServiceError;
use deadbeat_services::people::{member, project};
use deadbeat_store::page::Page;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::pages::{browser, own_project, set_role};
use crate::contract::Caller;
use crate::harness::{self, Harness};
use crate::web_dashboard::form_token;

fn by(project: ProjectId, id: AccountId, role: Role) -> Access {
    Access::new(project, Actor::Account { id, role })
}

async fn roles(harness: &Harness, project: ProjectId) -> Vec<(AccountId, Role)> {
    let page = Page {
        after: None,
        limit: 500,
    };
    let operator = Access::new(project, Actor::Operator);
    let members = member::list(harness.app.services(), &operator, page)
        .await
        .unwrap();
    members.into_iter().map(|one| (one.account, one.role)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_key_manages_members_below_owner_and_no_others() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let own = own_project(&harness).await;
    let (ada, _) = browser(&harness, "ada").await;
    set_role(&harness, own, ada, Role::Viewer).await;
    let (stranger, _) = browser(&harness, "stranger").await;
    let at = format!("/api/v1/members/{ada}");
    let listed = caller.pages("/api/v1/members", 1).await;
    assert_eq!(listed.len(), 2);
    let owner = listed.iter().find(|one| one["role"] == "owner").unwrap();
    assert_eq!(owner["email"], harness.email.as_str());

    let promoted = caller.json(Method::PATCH, &at, &json!({"role": "admin"})).await;

    assert_eq!(
        (promoted.status, &promoted.json["role"]),
        (StatusCode::OK, &json!("admin"))
    );
    let owner = format!("/api/v1/members/{}", owner["id"].as_str().unwrap());
    for (method, path, body, status) in [
        (Method::PATCH, &at, json!({"role": "owner"}), 403),
        (Method::PATCH, &owner, json!({"role": "viewer"}), 403),
        (Method::DELETE, &owner, Value::Null, 403),
        (Method::PATCH, &at, json!({"role": "root"}), 400),
        (Method::PATCH, &at, json!({"role": null}), 400),
        (Method::PATCH, &at, json!({}), 400),
        (
            Method::PATCH,
            &format!("/api/v1/members/{stranger}"),
            json!({"role": "viewer"}),
            404,
        ),
        (
            Method::DELETE,
            &format!("/api/v1/members/{stranger}"),
            Value::Null,
            404,
        ),
        (Method::DELETE, &"/api/v1/members/x".to_owned(), Value::Null, 404),
    ] {
        let answer = if body.is_null() {
            caller.call(method.clone(), path).await
        } else {
            caller.json(method.clone(), path, &body).await
        };
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path} {body}: {}",
            answer.json
        );
    }
    let (other_key, _) = harness.other_project().await;
    let theirs = Caller::with_key(&harness, &other_key);
    assert_eq!(
        theirs.call(Method::DELETE, &at).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(theirs.pages("/api/v1/members", 50).await.len(), 1);
    assert_eq!(roles(&harness, own).await.len(), 2);

    assert_eq!(
        caller.call(Method::DELETE, &at).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(roles(&harness, own).await.len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_roles_up_to_its_own_and_may_always_leave() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let own = own_project(&harness).await;
    let mut ids = Vec::new();
    for role in [Role::Owner, Role::Admin, Role::Member, Role::Viewer] {
        let (id, _) = browser(&harness, role.as_str()).await;
        set_role(&harness, own, id, role).await;
        ids.push(id);
    }
    let [owner, admin, plain, viewer] = ids[..] else {
        unreachable!()
    };
    let refused = |result: Result<_, ServiceError>| matches!(result, Err(ServiceError::Refused(_)));

    let as_admin = by(own, admin, Role::Admin);
    assert!(refused(
        member::set_role(services, &as_admin, admin, Role::Owner)
            .await
            .map(drop)
    ));
    assert!(refused(
        member::set_role(services, &as_admin, owner, Role::Viewer)
            .await
            .map(drop)
    ));
    assert!(refused(member::remove(services, &as_admin, owner).await));
    assert!(refused(member::transfer(services, &as_admin, plain).await));
    for (id, role) in [(plain, Role::Member), (viewer, Role::Viewer)] {
        let access = by(own, id, role);
        assert!(refused(
            member::set_role(services, &access, id, Role::Admin)
                .await
                .map(drop)
        ));
        assert!(refused(member::remove(services, &access, admin).await));
    }
    member::set_role(services, &as_admin, viewer, Role::Admin)
        .await
        .unwrap();
    member::remove(services, &by(own, plain, Role::Member), plain)
        .await
        .unwrap();

    member::transfer(services, &by(own, owner, Role::Owner), viewer)
        .await
        .unwrap();

    let now = roles(&harness, own).await;
    let role_of = |id: AccountId| now.iter().find(|one| one.0 == id).map(|one| one.1);
    assert_eq!(role_of(viewer), Some(Role::Owner));
    assert_eq!(role_of(owner), Some(Role::Admin));
    assert_eq!(role_of(plain), None);
    // The role in an access may be older than a change.
    let stale = member::transfer(services, &by(own, owner, Role::Owner), admin).await;
    assert!(matches!(stale, Err(ServiceError::NotFound(_))));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_owners_who_go_at_the_same_moment_one_stays() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let (ada, _) = browser(&harness, "ada").await;
    let (bob, _) = browser(&harness, "bob").await;
    for round in 0..10 {
        let own = project::create(services, "Race", Some(ada))
            .await
            .unwrap()
            .project
            .id;
        set_role(&harness, own, bob, Role::Owner).await;
        let go = |id: AccountId| {
            let (services, access) = (services.clone(), by(own, id, Role::Owner));
            tokio::spawn(async move {
                if round % 2 == 0 {
                    member::remove(&services, &access, id).await
                } else {
                    member::set_role(&services, &access, id, Role::Viewer)
                        .await
                        .map(drop)
                }
            })
        };

        let (one, other) = tokio::join!(go(ada), go(bob));

        let results = [one.unwrap(), other.unwrap()];
        let refused = results
            .iter()
            .filter(|one| matches!(one, Err(ServiceError::Conflict(_))))
            .count();
        assert_eq!(refused, 1, "round {round}: {results:?}");
        let owners = roles(&harness, own).await;
        assert_eq!(
            owners.iter().filter(|one| one.1 == Role::Owner).count(),
            1,
            "round {round}"
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_creates_projects_and_pages_remember_the_last_one() {
    let harness = harness::start().await;
    let (_, mut ada) = browser(&harness, "ada").await;
    let page = ada.get("/projects/new").await.text().await.unwrap();
    let token = form_token(&page);
    let mut ids = Vec::new();
    for name in ["First", "<b>Second</b>"] {
        let answer = ada
            .post("/projects/new", &[("form_token", &token), ("name", name)])
            .await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let text = answer.text().await.unwrap();
        assert!(!text.contains("<b>Second"), "{text}");
        for prefix in ["dbw_", "dbr_", "dbp_"] {
            assert!(text.contains(prefix), "{text}");
        }
        let (_, id) = text.split_once("?project=").unwrap();
        ids.push(id[..36].to_owned());
    }
    for (name, status) in [("", 422), ("x".repeat(101).as_str(), 422), ("a\u{0}", 422)] {
        let answer = ada
            .post("/projects/new", &[("form_token", &token), ("name", name)])
            .await;
        assert_eq!(answer.status().as_u16(), status, "{name:?}");
    }
    let forged = ada
        .post("/projects/new", &[("form_token", "x"), ("name", "n")])
        .await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);

    let mut shows = async |path: &str, id: &str| {
        let text = ada.get(path).await.text().await.unwrap();
        assert!(text.contains(&format!("/celery?project={id}\"")), "{path}");
    };
    shows("/", &ids[0]).await;
    shows(&format!("/runs?project={}", ids[1]), &ids[1]).await;
    for path in ["/", "/celery", "/runs", "/tasks"] {
        shows(path, &ids[1]).await;
    }

    // A foreign project is neither shown nor remembered.
    let foreign = own_project(&harness).await;
    let answer = ada.get(&format!("/?project={foreign}")).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let text = ada.get("/").await.text().await.unwrap();
    assert!(text.contains(&ids[1]));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_owns_a_bounded_number_of_projects() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let (ada, _) = browser(&harness, "ada").await;
    for _ in 0..deadbeat_domain::limits::ACCOUNT_PROJECTS_A_DAY {
        project::create_by_account(services, ada, "One more", None)
            .await
            .unwrap();
    }
    let one_more = project::create_by_account(services, ada, "One more", None).await;
    assert!(matches!(one_more.err(), Some(ServiceError::TooMany { .. })));

    for _ in deadbeat_domain::limits::ACCOUNT_PROJECTS_A_DAY as i64..deadbeat_domain::limits::ACCOUNT_PROJECTS
    {
        project::create(services, "By the operator", Some(ada))
            .await
            .unwrap();
    }
    let one_more = project::create_by_account(services, ada, "One more", None).await;
    assert!(matches!(one_more.err(), Some(ServiceError::Limit { .. })));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_members_does_what_a_role_may_and_nothing_else() {
    let harness = harness::start().await;
    let own = own_project(&harness).await;
    let (ada, mut owner) = browser(&harness, "ada").await;
    set_role(&harness, own, ada, Role::Owner).await;
    let (vi, mut viewer) = browser(&harness, "vi").await;
    set_role(&harness, own, vi, Role::Viewer).await;
    let (_, mut stranger) = browser(&harness, "stranger").await;
    let (project, path) = (own.to_string(), format!("/members?project={own}"));
    let page = viewer.get(&path).await.text().await.unwrap();
    assert!(
        page.contains("ada@example.org") && !page.contains("Remove</button>"),
        "{page}"
    );
    let vi_token = form_token(&page);
    let ada_id = ada.to_string();
    let post = |act: &'static str, account: &str, role: &'static str| {
        vec![
            ("project", project.clone()),
            ("act", act.to_owned()),
            ("account", account.to_owned()),
            ("role", role.to_owned()),
        ]
    };
    fn with<'a>(token: &'a str, fields: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
        let mut all = vec![("form_token", token)];
        all.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
        all
    }

    for act in ["role", "remove", "transfer", "invite"] {
        let fields = post(act, &ada_id, "viewer");
        let answer = viewer.post("/members", &with(&vi_token, &fields)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{act} by a viewer");
    }
    let their_page = stranger.get("/projects/new").await.text().await.unwrap();
    let fields = post("leave", "", "");
    let foreign = stranger
        .post("/members", &with(&form_token(&their_page), &fields))
        .await;
    assert_eq!(foreign.status(), StatusCode::NOT_FOUND);
    // The token of one session is no token of another.
    let forged = owner.post("/members", &with(&vi_token, &fields)).await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);

    let page = owner.get(&path).await.text().await.unwrap();
    let token = form_token(&page);
    let vi_id = vi.to_string();
    let made = owner
        .post("/members", &with(&token, &post("invite", "", "admin")))
        .await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert!(made.text().await.unwrap().contains("/invitations/"));
    for (act, status) in [("transfer", 303), ("leave", 303)] {
        let answer = owner
            .post("/members", &with(&token, &post(act, &vi_id, "")))
            .await;
        assert_eq!(answer.status().as_u16(), status, "{act}");
    }
    let now = roles(&harness, own).await;
    assert!(
        now.contains(&(vi, Role::Owner)) && now.iter().all(|one| one.0 != ada),
        "{now:?}"
    );
    // The first account of the harness is the other owner.
    for (id, _) in now.iter().filter(|one| one.0 != vi) {
        let fields = post("remove", &id.to_string(), "");
        let answer = viewer.post("/members", &with(&vi_token, &fields)).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    }
    let last = viewer
        .post("/members", &with(&vi_token, &post("leave", "", "")))
        .await;
    assert_eq!(last.status(), StatusCode::CONFLICT);
    assert!(last.text().await.unwrap().contains("last owner"));
    harness.stop().await;
}
