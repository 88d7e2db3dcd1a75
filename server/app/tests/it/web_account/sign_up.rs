//! Sign-up: closed, by invitation, and open to some domains.

use chrono::TimeDelta;
use deadbeat_domain::people::account::SignUp;
use reqwest::StatusCode;

use super::{ADA, OTHER_PASSWORD, PASSWORD, Town, is_signed_in, link, submit};
use crate::web_dashboard::{Browser, assert_sends_to, form_token};

fn open() -> SignUp {
    SignUp::Open(vec!["example.org".to_owned()])
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_up_where_that_is_closed_or_needs_an_invitation() {
    for mode in [SignUp::Closed, SignUp::Invite] {
        let town = Town::start(mode.clone()).await;
        let mut browser = Browser::from(&town.harness, "198.51.100.1");
        let page = browser.get("/sign-up").await.text().await.unwrap();
        assert!(!page.contains("<form"), "{mode:?}: {page}");
        assert!(
            !browser
                .get("/sign-in")
                .await
                .text()
                .await
                .unwrap()
                .contains("/sign-up")
        );
        let token = form_token(&browser.get("/sign-in").await.text().await.unwrap());
        let answer = browser
            .post("/sign-up", &[("form_token", &token), ("email", ADA)])
            .await;
        assert_eq!(answer.status(), StatusCode::OK);

        let made = "SELECT (SELECT count(*) FROM account_link) + (SELECT count(*) FROM quota)";
        assert_eq!(town.count(made).await, 0, "{mode:?}");
        assert!(town.inbox.mails().is_empty());
        town.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_an_allowed_domain_gets_an_account_with_its_own_project() {
    let town = Town::start(open()).await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    let asked = submit(&mut browser, "/sign-up", &[("email", " Ada@Example.ORG ")]).await;
    assert_eq!(asked.status(), StatusCode::OK);
    let mail = town.mail(1).await;
    assert_eq!(mail.to, [ADA]);
    let path = link(&mail, "/sign-up/");
    assert_eq!(
        town.count("SELECT count(*) FROM account").await,
        1,
        "no account before the address is proved"
    );
    let weak = submit(&mut browser, &path, &[("new_password", "password123")]).await;
    assert_eq!(weak.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let made = submit(&mut browser, &path, &[("new_password", PASSWORD)]).await;
    assert_sends_to(&made, "/");

    assert!(is_signed_in(&mut browser).await);
    let page = browser.get("/").await.text().await.unwrap();
    assert!(page.contains("My project") && page.contains(ADA), "{page}");
    let roles: Vec<(String, i64)> = sqlx::query_as(
        "SELECT role, (SELECT count(*) FROM member AS other WHERE other.project_id = member.project_id)
        FROM member JOIN account ON account.id = account_id WHERE email = 'ada@example.org'",
    )
    .fetch_all(&town.harness.pool)
    .await
    .unwrap();
    assert_eq!(roles, [("owner".to_owned(), 1)]);
    assert_eq!(browser.get(&path).await.status(), StatusCode::NOT_FOUND, "used");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_domains_known_addresses_and_free_ones_see_the_same() {
    let town = Town::start(open()).await;
    town.account(ADA).await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    let mut pages = Vec::new();
    for email in [
        ADA,
        "new@example.org",
        "eve@example.com",
        "eve@sub.example.org",
        "eve@example.org.evil.test",
        "\u{435}ve@example.org",
        "eve@example.org\r\nBcc: ada@example.org",
        "",
    ] {
        let answer = submit(&mut browser, "/sign-up", &[("email", email)]).await;
        pages.push((answer.status(), answer.text().await.unwrap()));
    }
    assert!(pages.iter().all(|page| *page == pages[0]), "{pages:?}");
    let mails = town.inbox.wait_for(2, crate::harness::LIMIT).await;
    let to = |email: &str| mails.iter().find(|mail| mail.to == [email]).unwrap();
    assert!(
        to(ADA)
            .header("Subject")
            .unwrap()
            .contains("have an account already")
    );
    link(to("new@example.org"), "/sign-up/");
    // A last mail: were there others, they would have come before it.
    submit(&mut browser, "/sign-up", &[("email", "last@example.org")]).await;
    assert_eq!(town.mail(3).await.to, ["last@example.org"]);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_makes_one_account_and_not_after_a_day() {
    let town = Town::start(open()).await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    submit(&mut browser, "/sign-up", &[("email", ADA)]).await;
    let path = link(&town.mail(1).await, "/sign-up/");
    let tries = (0..5).map(|n| {
        let (town, path) = (&town, path.clone());
        async move {
            let mut browser = Browser::from(&town.harness, &format!("198.51.100.1{n}"));
            let fields = [("new_password", OTHER_PASSWORD)];
            submit(&mut browser, &path, &fields).await.status()
        }
    });
    let statuses = futures::future::join_all(tries).await;
    let made = statuses.iter().filter(|status| **status == StatusCode::SEE_OTHER);
    assert_eq!(made.count(), 1, "{statuses:?}");
    assert_eq!(town.count("SELECT count(*) FROM account").await, 2);
    assert_eq!(town.count("SELECT count(*) FROM project").await, 2);

    submit(&mut browser, "/sign-up", &[("email", "late@example.org")]).await;
    let path = link(&town.mail(2).await, "/sign-up/");
    town.clock.advance(TimeDelta::days(1));
    assert_eq!(browser.get(&path).await.status(), StatusCode::NOT_FOUND);
    town.stop().await;
}
