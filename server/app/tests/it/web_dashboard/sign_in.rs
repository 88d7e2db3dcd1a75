//! Signing in and out, as a browser sees it.

use reqwest::StatusCode;
use reqwest::header::{RETRY_AFTER, SET_COOKIE};
use uuid::Uuid;

use super::{Browser, assert_sends_to, form_token};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_the_dashboard_without_a_session() {
    let harness = harness::start().await;
    let mut browser = Browser::new(&harness);

    assert_sends_to(&browser.get("/").await, "/sign-in");
    assert_sends_to(
        &browser.get(&format!("/?project={}", Uuid::now_v7())).await,
        "/sign-in",
    );
    for made_up in ["x", "", "' OR 1=1 --", &"9".repeat(43)] {
        browser.cookies = vec![("deadbeat_session".to_owned(), made_up.to_owned())];
        assert_sends_to(&browser.get("/").await, "/sign-in");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_a_right_one_opens_a_session() {
    let harness = harness::start().await;
    let mut browser = Browser::from(&harness, "198.51.100.11");

    for (email, password) in [
        (harness.email.as_str(), "wrong password"),
        ("nobody@example.org", &harness.password),
        ("", ""),
    ] {
        let answer = browser.sign_in(email, password).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{email}");
        let page = answer.text().await.unwrap();
        assert!(
            page.contains("The mail address or the password is wrong"),
            "{email}"
        );
        assert!(!page.contains(&harness.password));
        assert!(
            !browser.cookies.iter().any(|(name, _)| name == "deadbeat_session"),
            "{email}"
        );
    }

    let answer = browser
        .sign_in(&harness.email.to_uppercase(), &harness.password)
        .await;
    assert_sends_to(&answer, "/");
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=1209600"] {
        assert!(
            cookie.split("; ").any(|part| part == attribute),
            "{attribute} in {cookie}"
        );
    }
    let page = browser.dashboard("/").await;
    assert!(page.contains(&harness.email));
    assert!(page.contains("Nothing is watched yet"));
    assert!(page.contains(&format!("{}/ping/&lt;ping key&gt;/my-job?create=1", harness.url)));
    assert_sends_to(&browser.get("/sign-in").await, "/");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_stopped_and_answered_when_to_come_back() {
    let (harness, _clock) = harness::start_at("2026-03-01T02:00:00Z").await;
    let mut browser = Browser::from(&harness, "198.51.100.12");
    let page = browser.get("/sign-in").await.text().await.unwrap();
    let token = form_token(&page);
    let guess = [
        ("form_token", token.as_str()),
        ("email", "guessed@example.org"),
        ("password", "guess"),
    ];

    for _ in 0..10 {
        assert_eq!(
            browser.post("/sign-in", &guess).await.status(),
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    let stopped = browser.post("/sign-in", &guess).await;
    assert_eq!(stopped.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = stopped.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait), "slowed down, not locked out: {wait}");

    // The server blocks neither the same account from elsewhere nor another account from this address.
    let [here, elsewhere] = ["198.51.100.12", "198.51.100.13"];
    for (address, email, expected) in [
        (elsewhere, "guessed@example.org", StatusCode::UNPROCESSABLE_ENTITY),
        (here, "other@example.org", StatusCode::UNPROCESSABLE_ENTITY),
        (elsewhere, "other@example.org", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        browser.address = Some(address.to_owned());
        let answer = browser
            .post("/sign-in", &[guess[0], ("email", email), guess[2]])
            .await;
        assert_eq!(answer.status(), expected, "{address} {email}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_this_browser_was_not_shown_is_refused() {
    let harness = harness::start().await;
    let mut browser = Browser::signed_in(&harness).await;
    let page = browser.dashboard("/").await;
    let token = form_token(&page);
    let (email, password) = (harness.email.clone(), harness.password.clone());

    for fields in [
        vec![],
        vec![("form_token", "")],
        vec![("form_token", &token[1..])],
        vec![("form_token", &password)],
    ] {
        let answer = browser.post("/sign-out", &fields).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{fields:?}");
        assert!(answer.text().await.unwrap().contains("To the dashboard"));
    }
    for (name, value) in [
        ("Origin", "https://evil.test"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        let request = browser
            .post_request("/sign-out", &[("form_token", &token)])
            .header(name, value);
        assert_eq!(
            browser.send(request).await.status(),
            StatusCode::FORBIDDEN,
            "{name}: {value}"
        );
    }
    // A token fits only the cookie of its own browser. Without a cookie, no token fits.
    let mut other = Browser::new(&harness);
    let others = form_token(&other.get("/sign-in").await.text().await.unwrap());
    let mut stranger = Browser::new(&harness);
    let fields = [
        ("form_token", others.as_str()),
        ("email", &email),
        ("password", &password),
    ];
    assert_eq!(
        stranger.post("/sign-in", &fields).await.status(),
        StatusCode::FORBIDDEN
    );
    stranger.get("/sign-in").await;
    assert_eq!(
        stranger.post("/sign-in", &fields).await.status(),
        StatusCode::FORBIDDEN
    );

    // None of these requests ended the session. The real form does, also if the browser names the server's own origin.
    browser.dashboard("/").await;
    let request = browser
        .post_request("/sign-out", &[("form_token", &token)])
        .header("Origin", &harness.url);
    assert_sends_to(&browser.send(request).await, "/sign-in");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_over_after_sign_out_even_for_who_kept_its_cookie() {
    let harness = harness::start().await;
    let mut browser = Browser::signed_in(&harness).await;
    let kept = browser.cookies.clone();
    let token = form_token(&browser.dashboard("/").await);

    assert_sends_to(
        &browser.post("/sign-out", &[("form_token", &token)]).await,
        "/sign-in",
    );

    assert!(!browser.cookies.iter().any(|(name, _)| name == "deadbeat_session"));
    assert_sends_to(&browser.get("/").await, "/sign-in");
    browser.cookies = kept;
    assert_sends_to(&browser.get("/").await, "/sign-in");
    harness.stop().await;
}
