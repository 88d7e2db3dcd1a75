//! Sign-in by a mailed code: once, soon, in the browser that asked, with few attempts.

use chrono::TimeDelta;
use deadbeat_testkit::inbox::Mail;
use reqwest::StatusCode;

use super::{ADA, Town, is_signed_in, submit};
use crate::web_dashboard::{Browser, assert_sends_to};

/// The code of a mail.
fn code(mail: &Mail) -> String {
    let text = mail.part("text/plain").unwrap();
    let at = text.find("Code: ").unwrap_or_else(|| panic!("no code in {text}"));
    text[at + 6..].split_whitespace().next().unwrap().to_owned()
}

async fn ask(browser: &mut Browser<'_>, email: &str) {
    let answer = submit(browser, "/sign-in/mail", &[("email", email)]).await;
    assert_sends_to(&answer, "/sign-in/code");
}

async fn enter(browser: &mut Browser<'_>, code: &str) -> StatusCode {
    submit(browser, "/sign-in/code", &[("code", code)]).await.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_signs_in_the_browser_that_asked_and_once() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    ask(&mut browser, ADA).await;
    let code = code(&town.mail(1).await);
    assert_eq!(code.len(), 8);
    // Another browser that asked for a code of another address, and one that did not ask at all.
    let mut other = Browser::from(&town.harness, "198.51.100.2");
    assert_eq!(enter(&mut other, &code).await, StatusCode::UNPROCESSABLE_ENTITY);
    ask(&mut other, "nobody@example.org").await;
    assert_eq!(enter(&mut other, &code).await, StatusCode::UNPROCESSABLE_ENTITY);
    let step = browser.cookies.clone();
    let spaced = format!(" {} {} ", &code[..4], &code[4..]);
    let answer = submit(&mut browser, "/sign-in/code", &[("code", &spaced)]).await;
    assert_sends_to(&answer, "/");
    assert!(is_signed_in(&mut browser).await);
    assert!(browser.cookies.iter().all(|(name, _)| name != "deadbeat_step"));

    let mut again = Browser::from(&town.harness, "198.51.100.1");
    again.cookies = step;
    assert_eq!(
        enter(&mut again, &code).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "used"
    );
    assert!(!is_signed_in(&mut again).await);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_codes_and_ten_minutes_end_it() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    ask(&mut browser, ADA).await;
    let first = code(&town.mail(1).await);
    for n in 0..5 {
        assert_eq!(
            enter(&mut browser, &format!("{n}0000000x")).await,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    assert_eq!(
        enter(&mut browser, &first).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "the right one comes too late"
    );
    ask(&mut browser, ADA).await;
    let second = code(&town.mail(2).await);
    let mut other = Browser::from(&town.harness, "198.51.100.2");
    ask(&mut other, ADA).await;
    let third = code(&town.mail(3).await);
    town.clock.advance(TimeDelta::minutes(10) - TimeDelta::seconds(1));
    // A code that somebody else asked for later does not end the owner's.
    assert_eq!(enter(&mut browser, &second).await, StatusCode::SEE_OTHER);
    town.clock.advance(TimeDelta::seconds(1));
    assert_eq!(enter(&mut other, &third).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        town.count("SELECT count(*) FROM session").await,
        1,
        "the other browser did not get in"
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_code_entered_many_times_at_once_makes_one_session() {
    let (town, _) = Town::with_ada().await;
    let mut browser = Browser::from(&town.harness, "198.51.100.1");
    ask(&mut browser, ADA).await;
    let code = code(&town.mail(1).await);
    browser.get("/sign-in/code").await;
    let tries = (0..5).map(|_| {
        let mut twin = Browser::from(&town.harness, "198.51.100.1");
        twin.cookies = browser.cookies.clone();
        let code = code.clone();
        async move { enter(&mut twin, &code).await }
    });
    let statuses = futures::future::join_all(tries).await;

    let accepted = statuses.iter().filter(|status| **status == StatusCode::SEE_OTHER);
    assert_eq!(accepted.count(), 1, "{statuses:?}");
    assert_eq!(town.count("SELECT count(*) FROM session").await, 1);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_the_same_with_and_without_an_account() {
    let (town, _) = Town::with_ada().await;
    let mut seen = Vec::new();
    for email in [ADA, "nobody@example.org", "\u{430}da@example.org", "x\r\ny"] {
        let mut browser = Browser::from(&town.harness, "198.51.100.1");
        ask(&mut browser, email).await;
        let cookies: Vec<String> = browser.cookies.iter().map(|(name, _)| name.clone()).collect();
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let answer = submit(&mut browser, "/sign-in/code", &[("code", "00000000")]).await;
            let page = answer.text().await.unwrap();
            statuses.push((page.contains("The code is wrong."), page.contains("has ended")));
        }
        seen.push((cookies, statuses));
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    town.mail(1).await;
    town.stop().await;
}
