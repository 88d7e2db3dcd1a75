//! What answers reveal to a browser, a cache and a key.

use reqwest::header::{CACHE_CONTROL, HeaderMap, SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{self, Harness};

async fn headers(harness: &Harness, method: Method, path: &str) -> (StatusCode, HeaderMap) {
    let answer = harness.request(method, path).send().await.unwrap();
    (answer.status(), answer.headers().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_answers_carry_the_security_headers() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "slug": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let url = monitor["ping_url"].as_str().unwrap();
    let id = url.rsplit('/').next().unwrap().to_owned();

    for path in [
        format!("/ping/{id}"),
        format!("/{id}"),
        format!("/ping/{id}/256"),
        format!("/ping/{}", Uuid::new_v4()),
        format!("/ping/{}/job", harness.ping_key),
    ] {
        let (status, headers) = headers(&harness, Method::GET, &path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(
                headers.get(name).map(|value| value.as_bytes()),
                Some(value.as_bytes()),
                "{name} of {path}, {status}"
            );
        }
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'"),
            "{path}"
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_keeps_an_answer_of_the_api() {
    let harness = harness::start().await;

    for (method, path) in [
        (Method::GET, "/api/v1/monitors"),
        (Method::GET, "/api/v1/api-keys"),
        (Method::GET, "/api/v1/nothing"),
        (Method::DELETE, "/api/v1/monitors"),
        (Method::GET, "/api/v1/monitors/x"),
    ] {
        let (status, headers) = headers(&harness, method.clone(), path).await;
        assert_eq!(
            headers.get(CACHE_CONTROL).map(|value| value.as_bytes()),
            Some(&b"no-store"[..]),
            "{method} {path}: {status}"
        );
    }
    let without_key = harness
        .client
        .get(format!("{}/api/v1/project", harness.url))
        .send()
        .await
        .unwrap();
    assert_eq!(without_key.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(without_key.headers()[CACHE_CONTROL], "no-store");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_https_says_so_and_its_cookies_belong_to_its_host() {
    let harness = harness::start_changed(|parts| deadbeat_app::Parts {
        site_url: "https://deadbeat.example.org".to_owned(),
        ..parts
    })
    .await;

    for path in ["/sign-in", "/api/v1/project", "/healthz", "/ping/nothing"] {
        let (_, headers) = headers(&harness, Method::GET, path).await;
        assert_eq!(
            headers
                .get(STRICT_TRANSPORT_SECURITY)
                .map(|value| value.to_str().unwrap()),
            Some("max-age=31536000"),
            "{path}"
        );
    }
    let (_, headers) = headers(&harness, Method::GET, "/sign-in").await;
    let cookie = headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-deadbeat_visitor="), "{cookie}");
    assert!(
        ["Secure", "HttpOnly", "Path=/"]
            .iter()
            .all(|wanted| cookie.split("; ").any(|part| part == *wanted)),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"), "{cookie}");
    harness.stop().await;

    let plain = harness::start().await;
    let answer = plain
        .client
        .get(format!("{}/sign-in", plain.url))
        .send()
        .await
        .unwrap();
    assert!(!answer.headers().contains_key(STRICT_TRANSPORT_SECURITY));
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_for_ping_urls_and_for_nothing_else() {
    let harness = harness::start().await;
    let id = Uuid::new_v4();
    let key = &harness.ping_key;

    for (path, status) in [
        (format!("/ping/{id}"), 204),
        (format!("/{id}"), 204),
        (format!("/ping/{id}/start"), 204),
        (format!("/{key}/a-slug/fail/"), 204),
        ("/ping".to_owned(), 404),
        ("/ping/x".to_owned(), 404),
        ("/ping/a/b/c/d".to_owned(), 404),
        (format!("/ping/{id}/nonsense"), 404),
        (format!("/ping/{id}/300"), 404),
        ("/nothing".to_owned(), 404),
    ] {
        let (seen, _) = headers(&harness, Method::OPTIONS, &path).await;
        assert_eq!(seen.as_u16(), status, "OPTIONS {path}");
    }
    harness.stop().await;
}

/// A key that may only read must not be able to signal, and a ping URL alone permits that.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_key_is_shown_no_ping_url() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let ping_url = monitor["ping_url"].as_str().unwrap();
    let ping_id = ping_url.rsplit('/').next().unwrap();
    let path = format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap());

    for path in [path.as_str(), "/api/v1/monitors"] {
        let answer = harness
            .client
            .get(format!("{}{path}", harness.url))
            .bearer_auth(&harness.read_key)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains(ping_id), "{path} shows the ping URL: {text}");
        assert!(text.contains("\"ping_url\":null"), "{path}: {text}");
    }
    let shown: Value = harness.get(&path).await;
    assert_eq!(shown["ping_url"], ping_url, "the write key still sees it");
    harness.stop().await;
}
