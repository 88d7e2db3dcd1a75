//! The dashboard and the way to it, as a browser sees them. The tests carry the cookies themselves.

mod sign_in;

use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{self, Harness};

/// A browser: it keeps cookies. Tests read redirects and do not follow them.
pub struct Browser<'a> {
    harness: &'a Harness,
    pub cookies: Vec<(String, String)>,
    /// The server counts failures by address, so a test that fails on purpose has an address of its own.
    address: Option<String>,
}

impl<'a> Browser<'a> {
    pub fn new(harness: &'a Harness) -> Self {
        Self {
            harness,
            cookies: Vec::new(),
            address: None,
        }
    }

    /// A browser with this address, as a trusted proxy reports it.
    pub fn from(harness: &'a Harness, address: &str) -> Self {
        Self {
            address: Some(address.to_owned()),
            ..Self::new(harness)
        }
    }

    /// A browser that is signed in with the first account.
    pub async fn signed_in(harness: &'a Harness) -> Self {
        let mut browser = Self::new(harness);
        let answer = browser.sign_in(&harness.email, &harness.password).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        browser
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.harness.url)
    }

    pub async fn send(&mut self, request: RequestBuilder) -> Response {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut request = if cookies.is_empty() {
            request
        } else {
            request.header(COOKIE, cookies.join("; "))
        };
        if let Some(address) = &self.address {
            request = request.header("X-Forwarded-For", address);
        }
        let answer = request.send().await.unwrap();
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let (name, value) = cookie
                .to_str()
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .split_once('=')
                .unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Response {
        let request = self.harness.client.get(self.url(path));
        self.send(request).await
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let request = self.post_request(path, fields);
        self.send(request).await
    }

    pub fn post_request(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.harness
            .client
            .post(self.url(path))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish())
    }

    /// Opens the sign-in page and sends the form.
    pub async fn sign_in(&mut self, email: &str, password: &str) -> Response {
        let page = self.get("/sign-in").await.text().await.unwrap();
        let token = form_token(&page);
        self.post(
            "/sign-in",
            &[("form_token", &token), ("email", email), ("password", password)],
        )
        .await
    }

    /// Opens the dashboard, and asserts that the server shows it.
    async fn dashboard(&mut self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "GET {path}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        answer.text().await.unwrap()
    }
}

fn between<'p>(page: &'p str, before: &str, after: &str) -> &'p str {
    let start = page
        .find(before)
        .unwrap_or_else(|| panic!("no {before:?} in {page}"))
        + before.len();
    let length = page[start..]
        .find(after)
        .unwrap_or_else(|| panic!("no {after:?} behind {before:?}"));
    &page[start..start + length]
}

pub fn form_token(page: &str) -> String {
    between(page, "name=\"form_token\" value=\"", "\"").to_owned()
}

/// Returns the row of a monitor as a person reads it: without tags, and with single blanks.
fn row_of(page: &str, name: &str) -> String {
    let row = page
        .split("<tr ")
        .find(|row| row.contains(&format!(">{name}</span>")))
        .unwrap_or_else(|| panic!("no row of {name} in {page}"));
    let text: String = row
        .split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| format!("{text} "))
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn assert_sends_to(answer: &Response, path: &str) {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer.headers()[LOCATION], path);
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_stand_there_with_their_status_the_worst_first() {
    let harness = harness::start().await;
    let every_hour = json!({"kind": "interval", "seconds": 3600});
    let fails = harness
        .monitor(json!({"name": "Fails", "schedule": every_hour, "tags": ["prod"]}))
        .await;
    let works = harness
        .monitor(json!({"name": "Works", "schedule": every_hour}))
        .await;
    harness
        .monitor(json!({"name": "Waits", "schedule": every_hour}))
        .await;
    let runs = harness
        .monitor(json!({"name": "Runs", "schedule": every_hour}))
        .await;
    for (monitor, action) in [(&fails, "/7"), (&works, ""), (&runs, ""), (&runs, "/start")] {
        let url = format!("{}{action}", monitor["ping_url"].as_str().unwrap());
        assert_eq!(
            harness.client.get(url).send().await.unwrap().status(),
            StatusCode::OK
        );
    }

    let mut browser = Browser::signed_in(&harness).await;
    let page = browser.dashboard("/").await;

    assert!(page.contains("<h1>1 incident is open</h1>"));
    assert!(page.contains("<a href=\"/causes/FAILED\">FAILED</a>") && page.contains("Monitor <b>Fails</b>"));
    assert!(row_of(&page, "Fails").contains("down") && row_of(&page, "Fails").contains("prod"));
    assert!(row_of(&page, "Works").contains("up") && row_of(&page, "Works").contains("every hour"));
    assert!(row_of(&page, "Waits").contains("new") && row_of(&page, "Waits").contains("never"));
    assert!(row_of(&page, "Runs").contains("up") && row_of(&page, "Runs").contains("running"));
    assert!(row_of(&page, "Works").contains(works["ping_url"].as_str().unwrap()));
    let place = |name: &str| page.find(&format!("class=\"name\">{name}<")).unwrap();
    assert!(
        place("Fails") < place("Waits") && place("Waits") < place("Runs") && place("Runs") < place("Works")
    );

    let only_down = browser.dashboard("/?status=down").await;
    assert!(only_down.contains(">Fails</span>") && !only_down.contains(">Works</span>"));
    let none_late = browser.dashboard("/?status=late").await;
    assert!(none_late.contains("is late now"));
    for odd in [
        "/?status=gone",
        "/?cursor=x",
        "/?project=x",
        "/?project=1&project=2",
    ] {
        assert_eq!(browser.get(odd).await.status(), StatusCode::NOT_FOUND, "{odd}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_goes_on_on_the_next_page_and_loses_nobody() {
    let harness = harness::start().await;
    sqlx::query(
        "INSERT INTO monitor (id, project_id, ping_id, slug, name, tags, schedule, grace_seconds, all_channels, status, created_at, updated_at)
        SELECT gen_random_uuid(), project.id, gen_random_uuid(), 'job-' || n, 'Job ' || n || '.', '{}',
            '{\"kind\": \"interval\", \"seconds\": 60}', 60, true, CASE WHEN n % 50 = 0 THEN 'down' ELSE 'up' END, now(), now()
        FROM project, generate_series(1, 450) AS n",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    let mut browser = Browser::signed_in(&harness).await;

    let mut path = "/".to_owned();
    let mut seen = Vec::new();
    let mut rows = Vec::new();
    loop {
        let page = browser.dashboard(&path).await;
        let names: Vec<String> = page
            .split("class=\"name\">")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap().to_owned())
            .collect();
        rows.push(names.len());
        seen.extend(names);
        if !page.contains("rel=\"next\"") {
            break;
        }
        path = between(&page, "rel=\"next\" href=\"", "#").replace("&amp;", "&");
    }

    assert_eq!(rows, [200, 200, 50]);
    assert!(
        seen[..9].iter().all(|name| name.ends_with("0.")),
        "the nine monitors that are down come first: {:?}",
        &seen[..9]
    );
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 450);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_project_is_not_found_and_a_second_one_of_mine_can_be_chosen() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let stranger =
        deadbeat_services::people::account::create(services, "stranger@example.org", "a long password")
            .await
            .unwrap();
    let theirs = deadbeat_services::people::project::create(services, "Theirs", Some(stranger.id))
        .await
        .unwrap();
    let second = deadbeat_services::people::project::create(services, "Second of mine", None)
        .await
        .unwrap();
    let mut browser = Browser::signed_in(&harness).await;

    let refused = browser.get(&format!("/?project={}", theirs.project.id)).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert!(!refused.text().await.unwrap().contains("Theirs"));
    assert_eq!(
        browser
            .get(&format!("/?project={}", Uuid::now_v7()))
            .await
            .status(),
        StatusCode::NOT_FOUND
    );

    let first = browser.dashboard("/").await;
    assert!(first.contains("Second of mine") && !first.contains("Theirs"));
    let chosen = browser
        .dashboard(&format!("/?project={}", second.project.id))
        .await;
    assert!(chosen.contains("· Second of mine · Deadbeat</title>"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_in_which_nobody_listened_is_shown_for_a_day() {
    let harness = harness::start().await;
    let mut browser = Browser::signed_in(&harness).await;
    assert!(!browser.dashboard("/").await.contains("could not listen"));
    let spell = async |ended: &str| {
        let text = format!(
            "INSERT INTO blind_spell (id, started_at, ended_at)
            VALUES (gen_random_uuid(), {ended} - interval '95 seconds', {ended})"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .execute(&harness.pool)
            .await
            .unwrap();
    };

    spell("now() - interval '25 hours'").await;
    assert!(!browser.dashboard("/").await.contains("could not listen"));
    sqlx::query("DELETE FROM blind_spell")
        .execute(&harness.pool)
        .await
        .unwrap();
    spell("now() - interval '23 hours'").await;
    let page = browser.dashboard("/").await;

    assert!(page.contains("Deadbeat could not listen for 1 min"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_project_is_informed() {
    let harness = harness::start().await;
    deadbeat_services::people::account::create(harness.app.services(), "new@example.org", "a long password")
        .await
        .unwrap();
    let mut browser = Browser::new(&harness);
    assert_sends_to(&browser.sign_in("new@example.org", "a long password").await, "/");

    assert!(browser.dashboard("/").await.contains("You are in no project yet"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_shown_as_text_whatever_they_hold() {
    let harness = harness::start().await;
    let evil = "<script>alert('1')</script>\"><img src=x onerror=\"alert(2)\">&amp;{{ 7 * 7 }}";
    let monitor = harness
        .monitor(json!({"name": evil, "slug": "evil", "tags": ["<b>tag</b>"], "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let fails = format!("{}/fail", monitor["ping_url"].as_str().unwrap());
    harness.client.get(fails).send().await.unwrap();
    let mut browser = Browser::signed_in(&harness).await;
    browser.address = Some("198.51.100.14".to_owned());

    let page = browser.dashboard("/").await;

    for markup in ["<script", "<img src=x", "<b>tag", " style=", "onerror=\""] {
        assert!(!page.contains(markup), "{markup}");
    }
    assert!(page.contains("alert(") && page.contains("{{ 7 * 7 }}"));
    // The form shows again what the person typed, as text.
    browser.cookies.clear();
    let again = browser
        .sign_in("\"><script>alert(1)</script>", "x")
        .await
        .text()
        .await
        .unwrap();
    assert!(again.contains("alert(1)") && !again.contains("<script"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_files_are_served_for_good_under_their_hash() {
    let harness = harness::start().await;
    let mut browser = Browser::new(&harness);
    let page = browser.get("/sign-in").await.text().await.unwrap();

    let files: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|path| path.starts_with("/static/"))
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for path in files {
        let answer = browser.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert!(
            answer.headers()[CACHE_CONTROL]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        let kind = if path.ends_with(".svg") {
            "image/svg+xml"
        } else {
            "text/css; charset=utf-8"
        };
        assert_eq!(answer.headers()[CONTENT_TYPE], kind);
    }
    assert_eq!(
        browser.get("/static/base-0000000000000000.css").await.status(),
        StatusCode::NOT_FOUND
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_learn_which_are_right() {
    let harness = harness::start().await;
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/sign-in", "GET, HEAD, POST"),
        ("GET", "/sign-out", "POST"),
    ] {
        let answer = harness
            .client
            .request(method.parse().unwrap(), format!("{}{path}", harness.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(answer.headers()["allow"], allowed);
    }
    let head = harness
        .client
        .head(format!("{}/sign-in", harness.url))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.text().await.unwrap().is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_that_all_is_judged_while_a_lost_process_is_waited_for() {
    let harness = harness::start().await;
    harness.ready().await;
    sqlx::query(
        "INSERT INTO listener (id, stamped_at, spooled, awaited_until)
        VALUES (gen_random_uuid(), now() - interval '5 s', 0, now() + interval '1 h')",
    )
    .execute(&harness.pool)
    .await
    .unwrap();

    let ready = harness
        .wait_for("/readyz", |seen| seen["deployment"]["judging"] == false)
        .await;
    assert_eq!(ready["ready"], true, "the process does its own work");
    assert_eq!(ready["deployment"]["waits_for"], "lost_listener");
    assert_eq!(ready["deployment"]["lost_listeners"], 1);
    assert!(ready["deployment"]["waits_until"].is_string());
    let mut browser = Browser::signed_in(&harness).await;
    let page = browser.dashboard("/").await;
    assert!(
        page.contains("a process that may hold pings fell silent"),
        "{page}"
    );
    harness.stop().await;
}
