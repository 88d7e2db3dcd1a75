//! Change of the mail address: the new one agrees, and the old one can undo.

use chrono::TimeDelta;
use reqwest::StatusCode;

use super::{ADA, PASSWORD, Town, is_signed_in, link, submit};
use crate::web_dashboard::{Browser, assert_sends_to};

const NEW: &str = "ada.lovelace@example.org";

async fn ask(browser: &mut Browser<'_>, email: &str) -> StatusCode {
    submit(browser, "/account/email", &[("email", email)])
        .await
        .status()
}

async fn email_of_ada(town: &Town, ada: deadbeat_domain::ids::AccountId) -> String {
    sqlx::query_scalar("SELECT email FROM account WHERE id = $1")
        .bind(ada.0)
        .fetch_one(&town.harness.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_address_agrees_and_the_old_one_can_undo_for_thirty_days() {
    let (town, ada) = Town::with_ada().await;
    let mut browser = town.browser(ADA, "198.51.100.1").await;
    assert_eq!(ask(&mut browser, NEW).await, StatusCode::OK);
    let mail = town.mail(1).await;
    assert_eq!(mail.to, [NEW]);
    assert_eq!(
        email_of_ada(&town, ada).await,
        ADA,
        "not before the new address agrees"
    );
    let confirm = link(&mail, "/account/email/confirm/");
    let mut anywhere = Browser::from(&town.harness, "198.51.100.2");
    let done = submit(&mut anywhere, &confirm, &[]).await;
    assert_eq!(done.status(), StatusCode::OK);

    assert_eq!(email_of_ada(&town, ada).await, NEW);
    assert_eq!(
        anywhere.get(&confirm).await.status(),
        StatusCode::NOT_FOUND,
        "used"
    );
    assert!(is_signed_in(&mut browser).await && !is_signed_in(&mut anywhere).await);
    let alerted = town.mail(2).await;
    assert_eq!(alerted.to, [ADA]);
    let undo = link(&alerted, "/account/email/undo/");
    town.clock.advance(TimeDelta::days(29));
    let mut later = town.browser(NEW, "198.51.100.3").await;
    let undone = submit(&mut anywhere, &undo, &[]).await;
    assert_eq!(undone.status(), StatusCode::OK);

    assert_eq!(email_of_ada(&town, ada).await, ADA);
    assert!(!is_signed_in(&mut later).await, "all sessions ended");
    assert_eq!(anywhere.get(&undo).await.status(), StatusCode::NOT_FOUND, "used");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_with_a_session_cannot_keep_the_account_from_its_owner() {
    let (town, ada) = Town::with_ada().await;
    let mut thief = town.browser(ADA, "198.51.100.66").await;
    let mut links = Vec::new();
    // The thief changes the address twice, and has the link that undoes the second change.
    for (n, email) in ["thief@example.com", "thief2@example.com"]
        .into_iter()
        .enumerate()
    {
        town.clock.advance(TimeDelta::seconds(1));
        assert_eq!(ask(&mut thief, email).await, StatusCode::OK);
        let confirm = link(&town.mail(2 * n + 1).await, "/account/email/confirm/");
        submit(&mut thief, &confirm, &[]).await;
        links.push(link(&town.mail(2 * n + 2).await, "/account/email/undo/"));
    }
    // Using the later link does not end the owner's link.
    let mut elsewhere = Browser::from(&town.harness, "198.51.100.67");
    submit(&mut elsewhere, &links[1], &[]).await;
    assert_eq!(email_of_ada(&town, ada).await, "thief@example.com");

    let mut owner = Browser::from(&town.harness, "198.51.100.1");
    let undone = submit(&mut owner, &links[0], &[]).await;
    assert_eq!(undone.status(), StatusCode::OK);

    assert_eq!(email_of_ada(&town, ada).await, ADA);
    assert!(!is_signed_in(&mut thief).await);
    assert_eq!(town.count("SELECT count(*) FROM account_link").await, 0);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_undo_ends_the_links_that_a_thief_made_later() {
    let (town, ada) = Town::with_ada().await;
    let mut thief = town.browser(ADA, "198.51.100.66").await;
    let mut links = Vec::new();
    for (n, email) in ["thief@example.com", "thief2@example.com"]
        .into_iter()
        .enumerate()
    {
        town.clock.advance(TimeDelta::seconds(1));
        ask(&mut thief, email).await;
        let confirm = link(&town.mail(2 * n + 1).await, "/account/email/confirm/");
        submit(&mut thief, &confirm, &[]).await;
        links.push(link(&town.mail(2 * n + 2).await, "/account/email/undo/"));
    }
    let mut owner = Browser::from(&town.harness, "198.51.100.1");
    submit(&mut owner, &links[0], &[]).await;

    assert_eq!(owner.get(&links[1]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(email_of_ada(&town, ada).await, ADA);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_somebody_else_is_neither_taken_nor_revealed() {
    let (town, ada) = Town::with_ada().await;
    town.account("eve@example.org").await;
    let mut browser = town.browser(ADA, "198.51.100.1").await;
    let known = submit(&mut browser, "/account/email", &[("email", "eve@example.org")]).await;
    let known = (known.status(), known.text().await.unwrap());
    // A later request ends the link of an earlier one, and the mails of two requests at once have no order.
    town.inbox.wait_for(1, crate::harness::LIMIT).await;
    let free = submit(&mut browser, "/account/email", &[("email", NEW)]).await;
    let free = (free.status(), free.text().await.unwrap());
    assert_eq!(known, free);
    let mails = town.inbox.wait_for(2, crate::harness::LIMIT).await;
    let to_eve = mails.iter().find(|mail| mail.to == ["eve@example.org"]).unwrap();
    assert!(
        to_eve
            .header("Subject")
            .unwrap()
            .contains("have an account already")
    );
    let to_new = mails.iter().find(|mail| mail.to == [NEW]).unwrap();
    let confirm = link(to_new, "/account/email/confirm/");
    // Meanwhile somebody else gets an account with the new address: the link gives nothing away.
    town.account(NEW).await;
    let mut anywhere = Browser::from(&town.harness, "198.51.100.2");
    assert_eq!(
        submit(&mut anywhere, &confirm, &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(email_of_ada(&town, ada).await, ADA);

    for wrong in [
        "",
        "x",
        "\u{430}da@example.com",
        "a@b\r\nBcc: c@d",
        "a@[127.0.0.1]",
        ADA,
    ] {
        assert_eq!(
            ask(&mut browser, wrong).await,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{wrong}"
        );
    }
    // A session alone is not enough.
    town.clock.advance(TimeDelta::minutes(16));
    let asked = browser.get("/account/email").await;
    assert_sends_to(&asked, "/account/prove?next=/account/email");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_a_change_that_waits() {
    let (town, ada) = Town::with_ada().await;
    let mut thief = town.browser(ADA, "198.51.100.66").await;
    ask(&mut thief, "thief@example.com").await;
    let confirm = link(&town.mail(1).await, "/account/email/confirm/");
    let mut owner = Browser::from(&town.harness, "198.51.100.1");
    submit(&mut owner, "/reset", &[("email", ADA)]).await;
    let reset = link(&town.mail(2).await, "/reset/");
    submit(&mut owner, &reset, &[("new_password", super::OTHER_PASSWORD)]).await;

    assert_eq!(thief.get(&confirm).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(email_of_ada(&town, ada).await, ADA);
    assert_eq!(
        owner.sign_in(ADA, PASSWORD).await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    town.stop().await;
}
