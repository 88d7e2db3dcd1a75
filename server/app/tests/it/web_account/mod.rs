//! Accounts, as their owners and as strangers meet them: real pages, real mails, a stopped clock.

mod addresses;
mod codes;
mod factor;
mod leaving;
mod passwords;
mod sessions;
mod sign_up;

use std::sync::Arc;

use deadbeat_app::Parts;
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::account::SignUp;
use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_services::people::account::{self, AccountSettings};
use deadbeat_testkit::inbox::Mail;
use deadbeat_testkit::{Inbox, StoppedClock};
use reqwest::{Response, StatusCode};

use crate::harness::{self, Harness, LIMIT};
use crate::web_dashboard::{Browser, form_token};

pub const START: &str = "2026-03-02T01:00:00Z";
pub const ADA: &str = "ada@example.org";
pub const PASSWORD: &str = "a long password";
pub const OTHER_PASSWORD: &str = "quite another password";

/// A server with a mail server and a stopped clock.
pub struct Town {
    pub harness: Harness,
    pub clock: StoppedClock,
    pub inbox: Inbox,
}

impl Town {
    pub async fn start(sign_up: SignUp) -> Self {
        let clock = StoppedClock::at(START.parse().unwrap());
        let inbox = Inbox::start().await;
        let smtp = SmtpSettings {
            url: inbox.url(),
            from: "Deadbeat <deadbeat@example.com>".to_owned(),
        };
        let stopped = clock.clone();
        let harness = harness::start_mailing(smtp, |parts| Parts {
            clock: Arc::new(stopped),
            accounts: AccountSettings {
                sign_up,
                ..AccountSettings::default()
            },
            ..parts
        })
        .await;
        Self {
            harness,
            clock,
            inbox,
        }
    }

    /// A server where Ada has an account.
    pub async fn with_ada() -> (Self, AccountId) {
        let town = Self::start(SignUp::Closed).await;
        let ada = town.account(ADA).await;
        (town, ada)
    }

    pub async fn account(&self, email: &str) -> AccountId {
        account::create(self.harness.app.services(), email, PASSWORD)
            .await
            .unwrap()
            .id
    }

    /// A browser with an account that is signed in with its password.
    pub async fn browser(&self, email: &str, address: &str) -> Browser<'_> {
        let mut browser = Browser::from(&self.harness, address);
        let answer = browser.sign_in(email, PASSWORD).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{email}");
        browser
    }

    /// Waits until the inbox has this many mails, and returns the last one.
    pub async fn mail(&self, count: usize) -> Mail {
        self.inbox.wait_for(count, LIMIT).await.swap_remove(count - 1)
    }

    /// The number of rows that a statement counts.
    pub async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement)
            .fetch_one(&self.harness.pool)
            .await
            .unwrap()
    }

    pub async fn stop(self) {
        self.harness.stop().await;
    }
}

/// The path of the first link in a mail that begins like this.
pub fn link(mail: &Mail, begin: &str) -> String {
    let text = mail.part("text/plain").unwrap();
    let at = text.find(begin).unwrap_or_else(|| panic!("no {begin} in {text}"));
    text[at..].split_whitespace().next().unwrap().to_owned()
}

/// Opens a page and posts its form with these fields.
pub async fn submit(browser: &mut Browser<'_>, page: &str, fields: &[(&str, &str)]) -> Response {
    submit_to(browser, page, page, fields).await
}

/// Opens a page and posts a form of it to another path.
pub async fn submit_to(
    browser: &mut Browser<'_>,
    page: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Response {
    let shown = browser.get(page).await;
    assert_eq!(shown.status(), StatusCode::OK, "GET {page}");
    let token = form_token(&shown.text().await.unwrap());
    let mut all = vec![("form_token", token.as_str())];
    all.extend_from_slice(fields);
    browser.post(path, &all).await
}

/// True if the browser is signed in.
pub async fn is_signed_in(browser: &mut Browser<'_>) -> bool {
    browser.get("/account").await.status() == StatusCode::OK
}

pub fn session_of(browser: &Browser<'_>) -> String {
    let found = browser
        .cookies
        .iter()
        .find(|(name, _)| name == "deadbeat_session");
    found.expect("a session").1.clone()
}
