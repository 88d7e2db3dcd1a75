//! Guessing passwords, and what a guesser must not do to others.

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;

use crate::harness;
use crate::web_dashboard::Browser;

/// PostgreSQL refuses a NUL in a text.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_a_nul_is_a_wrong_try_like_any_other() {
    // With a stopped clock, the allowance of tries does not grow again.
    let (harness, _clock) = harness::start_at("2026-03-01T02:00:00Z").await;
    let mut browser = Browser::from(&harness, "198.51.100.21");

    let mut statuses = Vec::new();
    for n in 0..31 {
        let answer = browser
            .sign_in(&format!("a\0{n}@example.org"), "a password of length")
            .await;
        statuses.push(answer.status().as_u16());
    }

    assert_eq!(statuses[0], 422, "{statuses:?}");
    assert_eq!(statuses[30], 429, "each try counts: {statuses:?}");
    assert!(
        statuses.iter().all(|status| [422, 429].contains(status)),
        "{statuses:?}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_from_elsewhere_do_not_lock_an_account() {
    // With a stopped clock, the allowance of tries does not grow again.
    let (harness, _clock) = harness::start_at("2026-03-01T02:00:00Z").await;
    let mut owner = Browser::from(&harness, "203.0.113.31");
    let answer = owner.sign_in(&harness.email, &harness.password).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);

    // The tries come from one address, and then from so many addresses that the guard of the account itself applies.
    let mut refused = 0;
    for n in 0..60 {
        let address = if n < 12 {
            "198.51.100.31".to_owned()
        } else {
            format!("198.18.0.{n}")
        };
        let mut guesser = Browser::from(&harness, &address);
        let answer = guesser.sign_in(&harness.email, "a wrong password").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait: u64 = answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
            assert!(wait <= 10, "slowed down, not locked out: {wait} s");
            refused += 1;
        }
    }
    assert!(refused > 0, "guessing is slowed down");

    let mut again = Browser::from(&harness, "203.0.113.31");
    let answer = again.sign_in(&harness.email, &harness.password).await;
    assert_eq!(
        answer.status(),
        StatusCode::SEE_OTHER,
        "the owner signs in from a known address"
    );
    harness.stop().await;
}
