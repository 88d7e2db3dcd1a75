//! Passwords: changed with the old one, and reset by mail without a way for strangers.

use chrono::TimeDelta;
use deadbeat_domain::people::account::MAILS_A_DAY;
use reqwest::StatusCode;

use super::{ADA, OTHER_PASSWORD, PASSWORD, Town, is_signed_in, link, session_of, submit};
use crate::web_dashboard::{Browser, assert_sends_to};

/// Asks for a link that sets a new password, and returns the page.
async fn ask(browser: &mut Browser<'_>, email: &str) -> (StatusCode, String) {
    let answer = submit(browser, "/reset", &[("email", email)]).await;
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_the_old_password_and_ends_the_other_sessions() {
    let (town, _) = Town::with_ada().await;
    let mut browser = town.browser(ADA, "198.51.100.1").await;
    let mut other = town.browser(ADA, "198.51.100.2").await;
    let page = "/account/password";

    for (old, new, words) in [
        (
            "a wrong password",
            OTHER_PASSWORD,
            "The present password is wrong.",
        ),
        (PASSWORD, "short", "10 to 200 are allowed"),
        (PASSWORD, "Password123", "commonest"),
        (PASSWORD, "aaaaaaaaaaaa", "same few characters"),
        (PASSWORD, ADA, "part of the mail address"),
    ] {
        let answer = submit(&mut browser, page, &[("password", old), ("new_password", new)]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{new}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(words), "{words} in {text}");
        assert!(
            !text.contains(PASSWORD) && !text.contains("Password123"),
            "{text}"
        );
    }
    assert!(is_signed_in(&mut other).await, "nothing was changed");
    let before = session_of(&browser);
    let fields = [("password", PASSWORD), ("new_password", OTHER_PASSWORD)];
    assert_sends_to(&submit(&mut browser, page, &fields).await, "/account");

    assert!(is_signed_in(&mut browser).await && !is_signed_in(&mut other).await);
    assert_ne!(session_of(&browser), before);
    let mut anew = Browser::from(&town.harness, "198.51.100.3");
    assert_eq!(
        anew.sign_in(ADA, PASSWORD).await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_sends_to(&anew.sign_in(ADA, OTHER_PASSWORD).await, "/");
    let mail = town.mail(1).await;
    assert_eq!(mail.to, [ADA]);
    assert!(mail.header("Subject").unwrap().contains("password was changed"));
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_works_once_ends_all_sessions_and_signs_nobody_in() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let mut browser = Browser::from(&town.harness, "198.51.100.2");
    let (status, _) = ask(&mut browser, ADA).await;
    assert_eq!(status, StatusCode::OK);
    let mail = town.mail(1).await;
    assert_eq!(mail.to, [ADA]);
    let path = link(&mail, "/reset/");

    let stored = town.count("SELECT count(*) FROM account_link").await;
    assert_eq!(stored, 1);
    let token = path.rsplit('/').next().unwrap().to_owned();
    let in_clear: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM account_link WHERE account_link::text LIKE '%' || $1 || '%')",
    )
    .bind(&token)
    .fetch_one(&town.harness.pool)
    .await
    .unwrap();
    assert!(!in_clear, "the database has its digest alone");
    // Opening the page changes nothing, and a password that does not fit leaves the link.
    let weak = submit(&mut browser, &path, &[("new_password", "password123")]).await;
    assert_eq!(weak.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(is_signed_in(&mut owner).await);
    let set = submit(&mut browser, &path, &[("new_password", OTHER_PASSWORD)]).await;
    assert_eq!(set.status(), StatusCode::OK);

    assert!(!is_signed_in(&mut owner).await && !is_signed_in(&mut browser).await);
    assert_eq!(browser.get(&path).await.status(), StatusCode::NOT_FOUND, "used");
    assert_sends_to(&browser.sign_in(ADA, OTHER_PASSWORD).await, "/");
    let alerted = town.mail(2).await;
    assert!(
        alerted
            .header("Subject")
            .unwrap()
            .contains("password was changed")
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_resets_at_once_one_wins() {
    let (town, _) = Town::with_ada().await;
    let mut asking = Browser::from(&town.harness, "198.51.100.2");
    ask(&mut asking, ADA).await;
    let path = link(&town.mail(1).await, "/reset/");
    let tries = (0..6).map(|n| {
        let (town, path) = (&town, path.clone());
        async move {
            let mut browser = Browser::from(&town.harness, &format!("198.51.100.1{n}"));
            let password = format!("the password of number {n}");
            submit(&mut browser, &path, &[("new_password", &password)])
                .await
                .status()
        }
    });
    let statuses = futures::future::join_all(tries).await;

    let won: Vec<usize> = (0..6).filter(|n| statuses[*n] == StatusCode::OK).collect();
    assert_eq!(won.len(), 1, "{statuses:?}");
    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    let password = format!("the password of number {}", won[0]);
    assert_sends_to(&browser.sign_in(ADA, &password).await, "/");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_older_and_made_up_links_are_not_found() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.2");
    ask(&mut browser, ADA).await;
    let first = link(&town.mail(1).await, "/reset/");
    ask(&mut browser, ADA).await;
    let second = link(&town.mail(2).await, "/reset/");

    assert_eq!(
        browser.get(&first).await.status(),
        StatusCode::NOT_FOUND,
        "a later link ends it"
    );
    assert_eq!(browser.get(&second).await.status(), StatusCode::OK);
    // A link of one kind is none of another.
    let token = second.rsplit('/').next().unwrap();
    for other in ["/sign-up/", "/account/email/confirm/", "/account/email/undo/"] {
        assert_eq!(
            browser.get(&format!("{other}{token}")).await.status(),
            StatusCode::NOT_FOUND
        );
    }
    town.clock.advance(TimeDelta::hours(1));
    assert_eq!(
        browser.get(&second).await.status(),
        StatusCode::NOT_FOUND,
        "expired"
    );
    // After thirty wrong links, a client waits.
    let mut statuses = Vec::new();
    for n in 0..40 {
        statuses.push(browser.get(&format!("/reset/{n}")).await.status());
    }
    assert_eq!(
        statuses.last(),
        Some(&StatusCode::TOO_MANY_REQUESTS),
        "{statuses:?}"
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_nothing_and_the_mail_goes_to_the_stored_address_alone() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.2");
    let (known, known_page) = ask(&mut browser, ADA).await;
    town.mail(1).await;
    for unknown in [
        "nobody@example.org",
        // Letters that look like those of the account, or become them in lower case; more addresses, headers and lines.
        "\u{430}da@example.org",
        "ada@exam\u{440}le.org",
        "ada@example.org\r\nBcc: eve@example.com",
        "ada@example.org,eve@example.com",
        "ada@example.org\0",
        "\"ada@example.org\" <eve@example.com>",
        "",
        &"a".repeat(5_000),
    ] {
        let (status, page) = ask(&mut browser, unknown).await;
        assert_eq!(status, known, "{unknown}");
        assert_eq!(page, known_page, "{unknown}");
    }
    // The address is that of the account, as it is stored, however it was typed. The desk works in order: this mail is the second one.
    ask(&mut browser, " ADA@Example.org ").await;
    let second = town.mail(2).await;

    assert_eq!(second.to, [ADA]);
    assert_eq!(town.inbox.mails().len(), 2);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_gets_ten_mails_a_day_and_a_client_is_slowed_down() {
    let (town, _) = Town::with_ada().await;
    for n in 0..MAILS_A_DAY + 5 {
        let mut browser = Browser::from(&town.harness, &format!("198.51.101.{n}"));
        let (status, _) = ask(&mut browser, ADA).await;
        assert_eq!(status, StatusCode::OK, "the answer does not depend on the count");
    }
    town.inbox
        .wait_for(MAILS_A_DAY as usize, crate::harness::LIMIT)
        .await;
    let mut flooding = Browser::from(&town.harness, "198.51.100.9");
    let mut statuses = Vec::new();
    for n in 0..25 {
        statuses.push(ask(&mut flooding, &format!("nobody{n}@example.org")).await.0);
    }
    assert_eq!(statuses[19], StatusCode::OK, "{statuses:?}");
    assert_eq!(statuses[20], StatusCode::TOO_MANY_REQUESTS, "{statuses:?}");
    town.clock.advance(TimeDelta::days(1));
    let mut browser = Browser::from(&town.harness, "198.51.100.10");
    ask(&mut browser, ADA).await;

    let count = MAILS_A_DAY as usize + 1;
    town.mail(count).await;
    assert_eq!(town.inbox.mails().len(), count, "the further ones were not sent");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_resets_nothing() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.2");
    ask(&mut browser, ADA).await;
    let path = link(&town.mail(1).await, "/reset/");
    browser.get(&path).await;

    for fields in [
        vec![("new_password", OTHER_PASSWORD)],
        vec![("form_token", ""), ("new_password", OTHER_PASSWORD)],
    ] {
        let answer = browser.post(&path, &fields).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(
        browser.get(&path).await.status(),
        StatusCode::OK,
        "the link still works"
    );
    town.stop().await;
}
