//! The second factor: set up, asked for, never twice the same code.

use chrono::TimeDelta;
use reqwest::StatusCode;
use totp_rs::{Builder, Secret};

use super::{ADA, OTHER_PASSWORD, PASSWORD, Town, is_signed_in, link, submit, submit_to};
use crate::harness;
use crate::web_dashboard::{Browser, assert_sends_to, form_token};

/// The text of each line that a page shows for copying.
fn lines(page: &str) -> Vec<String> {
    page.split("<code class=\"pick\">")
        .skip(1)
        .map(|rest| rest.split("</code>").next().unwrap().to_owned())
        .collect()
}

/// The code of an authenticator now.
fn code(town: &Town, secret: &str) -> String {
    let totp = Builder::new()
        .with_secret(Secret::try_from_base32(secret).unwrap())
        .build()
        .unwrap();
    let time = town.harness.app.services().now().timestamp();
    totp.generate(u64::try_from(time).unwrap()).to_string()
}

/// Switches the second factor on. Returns the secret and the recovery codes.
async fn switch_on(town: &Town, browser: &mut Browser<'_>) -> (String, Vec<String>) {
    let shown = submit_to(browser, "/account/factor", "/account/factor/new", &[]).await;
    let page = shown.text().await.unwrap();
    let [secret, url] = lines(&page).try_into().unwrap();
    assert!(
        url.starts_with("otpauth://totp/Deadbeat:ada%40example.org?secret="),
        "{url}"
    );
    assert!(url.contains(&secret), "{url}");
    let token = form_token(&page);
    let answer = browser
        .post(
            "/account/factor",
            &[("form_token", &token), ("code", &code(town, &secret))],
        )
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    let codes = lines(&answer.text().await.unwrap());
    assert_eq!(codes.len(), 10);
    (secret, codes)
}

async fn enter(browser: &mut Browser<'_>, code: &str) -> StatusCode {
    submit(browser, "/sign-in/factor", &[("code", code)])
        .await
        .status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_needs_a_code_that_was_never_used() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let mut other = town.browser(ADA, "198.51.100.2").await;
    let (secret, _) = switch_on(&town, &mut owner).await;
    assert!(is_signed_in(&mut owner).await && !is_signed_in(&mut other).await);
    assert_eq!(town.mail(1).await.to, [ADA]);
    let used = code(&town, &secret);
    let stored: String = sqlx::query_scalar("SELECT authenticator::text FROM authenticator")
        .fetch_one(&town.harness.pool)
        .await
        .unwrap();
    assert!(!stored.contains(&secret), "{stored}");

    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    assert_sends_to(&browser.sign_in(ADA, PASSWORD).await, "/sign-in/factor");
    assert!(
        !is_signed_in(&mut browser).await,
        "the password alone is not enough"
    );
    assert_eq!(
        enter(&mut browser, &used).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "used to switch it on"
    );
    town.clock.advance(TimeDelta::seconds(30));
    let fresh = code(&town, &secret);
    assert_eq!(enter(&mut browser, &fresh).await, StatusCode::SEE_OTHER);
    assert!(is_signed_in(&mut browser).await);

    // Somebody who read the code over a shoulder, and knows the password.
    let mut thief = Browser::from(&town.harness, "198.51.100.66");
    assert_sends_to(&thief.sign_in(ADA, PASSWORD).await, "/sign-in/factor");
    for stale in [&fresh, &used] {
        assert_eq!(enter(&mut thief, stale).await, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert!(!is_signed_in(&mut thief).await);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_code_used_many_times_at_once_makes_one_session() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let (secret, _) = switch_on(&town, &mut owner).await;
    town.clock.advance(TimeDelta::seconds(30));
    let code = code(&town, &secret);
    let tries = (0..5).map(|n| {
        let (town, code) = (&town, code.clone());
        async move {
            let mut browser = Browser::from(&town.harness, &format!("198.51.100.1{n}"));
            browser.sign_in(ADA, PASSWORD).await;
            enter(&mut browser, &code).await
        }
    });
    let statuses = futures::future::join_all(tries).await;
    let accepted = statuses.iter().filter(|status| **status == StatusCode::SEE_OTHER);
    assert_eq!(accepted.count(), 1, "{statuses:?}");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_works_once_and_guessing_is_slowed_down() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let (secret, codes) = switch_on(&town, &mut owner).await;
    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    browser.sign_in(ADA, PASSWORD).await;
    assert_eq!(
        enter(&mut browser, &codes[0].to_lowercase()).await,
        StatusCode::SEE_OTHER
    );
    let page = browser.get("/account").await.text().await.unwrap();
    assert!(page.contains("Recovery codes left: 9"), "{page}");
    assert!(page.contains("A recovery code was used"), "{page}");
    let mut again = Browser::from(&town.harness, "198.51.100.4");
    again.sign_in(ADA, PASSWORD).await;
    assert_eq!(
        enter(&mut again, &codes[0]).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // Another set replaces them.
    let renewed = submit_to(&mut owner, "/account", "/account/factor/codes", &[]).await;
    let fresh = lines(&renewed.text().await.unwrap());
    assert_eq!(
        enter(&mut again, &codes[1]).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(enter(&mut again, &fresh[1]).await, StatusCode::SEE_OTHER);

    // Whoever knows the password begins again and again: after ten codes, even the right one is refused for a while.
    for n in 0..3 {
        let mut thief = Browser::from(&town.harness, &format!("198.51.100.6{n}"));
        thief.sign_in(ADA, PASSWORD).await;
        for _ in 0..5 {
            enter(&mut thief, "000000").await;
        }
    }
    town.clock.advance(TimeDelta::seconds(60));
    let mut thief = Browser::from(&town.harness, "198.51.100.70");
    thief.sign_in(ADA, PASSWORD).await;
    assert_eq!(
        enter(&mut thief, &code(&town, &secret)).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert!(is_signed_in(&mut owner).await, "the owner's sessions go on");
    town.clock.advance(TimeDelta::minutes(5));
    let mut later = Browser::from(&town.harness, "198.51.100.71");
    later.sign_in(ADA, PASSWORD).await;
    assert_eq!(
        enter(&mut later, &code(&town, &secret)).await,
        StatusCode::SEE_OTHER
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_mailed_code_nor_a_reset_goes_around_it() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let (secret, _) = switch_on(&town, &mut owner).await;
    town.mail(1).await;
    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    submit(&mut browser, "/sign-in/mail", &[("email", ADA)]).await;
    let text = town.mail(2).await.part("text/plain").unwrap();
    let mailed = text
        .split("Code: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    let answer = submit(&mut browser, "/sign-in/code", &[("code", &mailed)]).await;
    assert_sends_to(&answer, "/sign-in/factor");
    assert!(!is_signed_in(&mut browser).await);
    submit(&mut browser, "/reset", &[("email", ADA)]).await;
    let reset = link(&town.mail(3).await, "/reset/");
    submit(&mut browser, &reset, &[("new_password", OTHER_PASSWORD)]).await;
    assert_eq!(
        enter(&mut browser, &code(&town, &secret)).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "the reset ended the step"
    );

    assert_sends_to(&browser.sign_in(ADA, OTHER_PASSWORD).await, "/sign-in/factor");
    town.clock.advance(TimeDelta::seconds(30));
    assert_eq!(
        enter(&mut browser, &code(&town, &secret)).await,
        StatusCode::SEE_OTHER
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_it_off_and_proving_need_a_code_too() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let (secret, _) = switch_on(&town, &mut owner).await;
    town.clock.advance(TimeDelta::minutes(16));
    let off = "/account/factor/off";
    let refused = submit_to(&mut owner, "/account", off, &[]).await;
    assert_sends_to(&refused, "/account/prove?next=/account/factor");
    let prove = "/account/prove?next=/account/factor";
    for wrong in ["", "000000"] {
        let answer = submit(&mut owner, prove, &[("password", PASSWORD), ("code", wrong)]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let fields = [("password", PASSWORD), ("code", &code(&town, &secret))];
    assert_sends_to(&submit(&mut owner, prove, &fields).await, "/account/factor");
    assert_sends_to(&submit_to(&mut owner, "/account", off, &[]).await, "/account");

    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    assert_sends_to(&browser.sign_in(ADA, PASSWORD).await, "/");
    assert_eq!(town.count("SELECT count(*) FROM recovery_code").await, 0);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_confirmed_changes_nothing() {
    let (town, _) = Town::with_ada().await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    submit_to(&mut owner, "/account/factor", "/account/factor/new", &[]).await;
    let wrong = submit_to(
        &mut owner,
        "/account/factor",
        "/account/factor",
        &[("code", "000000")],
    )
    .await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    assert_sends_to(&browser.sign_in(ADA, PASSWORD).await, "/");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_sealed_anew_with_another_key_and_cannot_be_moved_to_another_account() {
    let (town, ada) = Town::with_ada().await;
    let eve = town.account("eve@example.org").await;
    let mut owner = town.browser(ADA, "198.51.100.1").await;
    let (secret, _) = switch_on(&town, &mut owner).await;
    let both = format!("{},{}", "08".repeat(32), "07".repeat(32));
    let ring = deadbeat_services::secret::keyring::Keyring::load(&both, None).unwrap();
    let store = deadbeat_store::Store::from_pool(town.harness.pool.clone());
    let key = ring.first().unwrap();
    let reseal = deadbeat_services::people::account::factor::reseal;
    assert_eq!(reseal(&store, &ring, &key).await.unwrap(), (1, 0));
    assert_eq!(reseal(&store, &ring, &key).await.unwrap(), (0, 0));
    // This server lacks the new key: it refuses, names no secret, and a recovery code still works.
    let mut browser = Browser::from(&town.harness, "198.51.100.3");
    browser.sign_in(ADA, PASSWORD).await;
    town.clock.advance(TimeDelta::seconds(30));
    assert_eq!(
        enter(&mut browser, &code(&town, &secret)).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let old = harness::keyring();
    let (sealed, unopened) = reseal(&store, &old, &old.first().unwrap()).await.unwrap();
    assert_eq!((sealed, unopened), (0, 1), "the old key alone does not open it");
    // Sealed back, and copied to Eve's row: it does not open there.
    let back = format!("{},{}", "07".repeat(32), "08".repeat(32));
    let back = deadbeat_services::secret::keyring::Keyring::load(&back, None).unwrap();
    reseal(&store, &back, &back.first().unwrap()).await.unwrap();
    sqlx::query("INSERT INTO authenticator SELECT $1, sealed, key_id, confirmed_at, 0 FROM authenticator WHERE account_id = $2")
        .bind(eve.0)
        .bind(ada.0)
        .execute(&town.harness.pool)
        .await
        .unwrap();
    let mut other = Browser::from(&town.harness, "198.51.100.4");
    other.sign_in("eve@example.org", PASSWORD).await;
    assert_eq!(
        enter(&mut other, &code(&town, &secret)).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        enter(&mut browser, &code(&town, &secret)).await,
        StatusCode::SEE_OTHER
    );
    town.stop().await;
}
