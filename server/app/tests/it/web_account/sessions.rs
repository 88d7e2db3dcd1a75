//! Sessions end by themselves and by their owner, and a proof makes a new one of them.

use chrono::TimeDelta;
use reqwest::StatusCode;

use super::{ADA, PASSWORD, Town, is_signed_in, session_of, submit, submit_to};
use crate::web_dashboard::{Browser, assert_sends_to};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_nobody_uses_it_and_however_it_is_used() {
    let (town, _) = Town::with_ada().await;
    let mut idle = town.browser(ADA, "198.51.100.1").await;
    let mut used = town.browser(ADA, "198.51.100.2").await;

    for _ in 0..13 {
        town.clock.advance(TimeDelta::days(1));
        assert!(is_signed_in(&mut used).await, "it is used each day");
    }
    assert!(!is_signed_in(&mut idle).await, "unused for three days");
    town.clock.advance(TimeDelta::hours(24));

    assert!(!is_signed_in(&mut used).await, "fourteen days have passed");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_moment_of_an_idle_session() {
    let (town, _) = Town::with_ada().await;
    let mut one = town.browser(ADA, "198.51.100.1").await;
    town.clock.advance(TimeDelta::hours(72) - TimeDelta::seconds(1));
    assert!(is_signed_in(&mut one).await);
    town.clock.advance(TimeDelta::hours(72));
    assert!(!is_signed_in(&mut one).await);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_ended_one_and_all() {
    let (town, _) = Town::with_ada().await;
    town.account("eve@example.org").await;
    let mut eve = town.browser("eve@example.org", "198.51.100.66").await;
    let mut here = town.browser(ADA, "198.51.100.1").await;
    let mut phone = town.browser(ADA, "198.51.100.2").await;
    let mut third = town.browser(ADA, "198.51.100.3").await;

    let page = here.get("/account").await.text().await.unwrap();
    for text in [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "this one",
        "Somebody signed in",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
    assert!(!page.contains("198.51.100.66"), "Eve's session is hers alone");
    assert!(!page.contains(&session_of(&phone)));
    let row = page
        .split("<tr>")
        .find(|row| row.contains("198.51.100.2"))
        .unwrap();
    let end = row.split("action=\"").nth(1).unwrap().split('"').next().unwrap();
    // Neither somebody else nor a form without its token ends it.
    assert_eq!(
        submit_to(&mut eve, "/account", end, &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        here.post(end, &[("form_token", "x")]).await.status(),
        StatusCode::FORBIDDEN
    );
    assert!(is_signed_in(&mut phone).await);

    assert_sends_to(&submit_to(&mut here, "/account", end, &[]).await, "/account");
    assert!(!is_signed_in(&mut phone).await);
    assert!(is_signed_in(&mut third).await);
    let all = "/account/sessions/end-others";
    assert_sends_to(&submit_to(&mut here, "/account", all, &[]).await, "/account");
    assert!(!is_signed_in(&mut third).await);
    assert!(is_signed_in(&mut here).await && is_signed_in(&mut eve).await);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_things_need_a_recent_proof_and_the_proof_changes_the_session() {
    let (town, _) = Town::with_ada().await;
    let mut browser = town.browser(ADA, "198.51.100.1").await;
    let mut other = town.browser(ADA, "198.51.100.2").await;
    assert_eq!(browser.get("/account/delete").await.status(), StatusCode::OK);
    town.clock.advance(TimeDelta::minutes(15));

    let asked = browser.get("/account/delete").await;
    assert_sends_to(&asked, "/account/prove?next=/account/delete");
    let refused = submit_to(&mut browser, "/account", "/account/delete", &[("email", ADA)]).await;
    assert_sends_to(&refused, "/account/prove?next=/account/delete");
    let prove = "/account/prove?next=/account/delete";
    let wrong = submit(&mut browser, prove, &[("password", "a wrong password")]).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let before = browser.cookies.clone();
    let proved = submit(&mut browser, prove, &[("password", PASSWORD)]).await;
    assert_sends_to(&proved, "/account/delete");

    assert_eq!(browser.get("/account/delete").await.status(), StatusCode::OK);
    // Whoever copied the cookie before has nothing now. Another session is not proved by this one.
    let mut thief = Browser::from(&town.harness, "198.51.100.3");
    thief.cookies = before;
    assert!(!is_signed_in(&mut thief).await);
    assert_sends_to(&other.get("/account/delete").await, prove);
    // Nobody is led to another site.
    for next in ["//evil.test", "https://evil.test", "/%5Cevil.test"] {
        let path = format!("/account/prove?next={next}");
        let proved = submit(&mut browser, &path, &[("password", PASSWORD)]).await;
        assert_sends_to(&proved, "/account");
    }
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_does_not_become_a_session() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    let planted = "a".repeat(43);
    browser.cookies = vec![("deadbeat_session".to_owned(), planted.clone())];

    let answer = browser.sign_in(ADA, PASSWORD).await;

    assert_sends_to(&answer, "/");
    assert_ne!(session_of(&browser), planted);
    browser.cookies.retain(|(name, _)| name != "deadbeat_session");
    browser.cookies.push(("deadbeat_session".to_owned(), planted));
    assert!(!is_signed_in(&mut browser).await);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hundred_and_first_session_ends_the_one_that_was_used_longest_ago() {
    let (town, ada) = Town::with_ada().await;
    let mut oldest = town.browser(ADA, "198.51.100.1").await;
    town.clock.advance(TimeDelta::seconds(1));
    let mut second = town.browser(ADA, "198.51.100.2").await;
    sqlx::query(
        "INSERT INTO session (id, account_id, digest, created_at, seen_at, expires_at)
        SELECT gen_random_uuid(), $1, decode(md5(n::text), 'hex'), $2, $2, $2 + interval '1 day' FROM generate_series(1, 97) n",
    )
    .bind(ada.0)
    .bind(town.harness.app.services().now())
    .execute(&town.harness.pool)
    .await
    .unwrap();
    let sessions = "SELECT count(*) FROM session JOIN account ON account.id = account_id WHERE email = 'ada@example.org'";
    town.clock.advance(TimeDelta::seconds(1));
    town.browser(ADA, "198.51.100.3").await;
    assert_eq!(town.count(sessions).await, 100);
    assert!(is_signed_in(&mut oldest).await);

    town.clock.advance(TimeDelta::seconds(1));
    town.browser(ADA, "198.51.100.4").await;

    assert_eq!(town.count(sessions).await, 100);
    assert!(!is_signed_in(&mut oldest).await);
    assert!(is_signed_in(&mut second).await);
    town.stop().await;
}
