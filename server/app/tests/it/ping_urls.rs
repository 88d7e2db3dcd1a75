//! The ping URLs, as a cron job's curl sees them.

use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{self, Harness};

async fn text(harness: &Harness, method: Method, path: &str) -> (StatusCode, String) {
    let answer = harness
        .client
        .request(method, format!("{}{path}", harness.url))
        .send()
        .await
        .unwrap();
    (answer.status(), answer.text().await.unwrap())
}

fn path_of(monitor: &serde_json::Value) -> String {
    let url = monitor["ping_url"].as_str().unwrap();
    url[url.find("/ping/").unwrap()..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_ping_url_is_taken_and_kept() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "slug": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let by_id = path_of(&monitor);
    let by_slug = format!("/ping/{}/job", harness.ping_key);
    let at_root = by_id.trim_start_matches("/ping").to_owned();
    let root_slug = by_slug.trim_start_matches("/ping").to_owned();

    let mut sent = 0;
    for base in [&by_id, &by_slug, &at_root, &root_slug] {
        for action in ["", "/", "/start", "/start/", "/log", "/0", "/fail", "/7", "/255/"] {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
                let (status, body) = text(&harness, method.clone(), &format!("{base}{action}")).await;
                assert_eq!(status, StatusCode::OK, "{method} {base}{action}");
                assert_eq!(
                    body,
                    if method == Method::HEAD { "" } else { "OK" },
                    "{method} {base}{action}"
                );
                sent += 1;
            }
        }
    }

    let seen = harness
        .get(&format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap()))
        .await;
    assert_eq!(seen["ping_count"], sent);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_healthchecks_and_record_nothing() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "slug": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let by_id = path_of(&monitor);
    let key = &harness.ping_key;

    for (path, status, body) in [
        (format!("/ping/{}", Uuid::new_v4()), 404, "not found"),
        (format!("/ping/{key}/nobody"), 404, "not found"),
        (format!("/ping/{key}x/job"), 404, "not found"),
        (format!("{by_id}/256"), 400, "invalid url format"),
        (format!("/ping/{key}/JOB"), 400, "invalid url format"),
        (format!("{by_id}?rid=nonsense"), 400, "invalid uuid format"),
        (format!("{by_id}?rid="), 400, "invalid uuid format"),
        (
            format!("{by_id}?rid={}", Uuid::new_v4().simple()),
            400,
            "invalid uuid format",
        ),
        (format!("{by_id}/foo"), 404, "not found"),
        // The API key is not a ping key.
        (format!("/ping/{}/job", harness.api_key), 404, "not found"),
    ] {
        let (seen, text) = text(&harness, Method::GET, &path).await;
        assert_eq!((seen.as_u16(), text.as_str()), (status, body), "{path}");
    }
    for method in [
        Method::OPTIONS,
        Method::DELETE,
        Method::PATCH,
        Method::from_bytes(b"AVERYLONGMETHODNAME").unwrap(),
    ] {
        let (status, _) = text(&harness, method.clone(), &by_id).await;
        let expected = if method == Method::OPTIONS {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::METHOD_NOT_ALLOWED
        };
        assert_eq!(status, expected, "{method}");
    }

    let seen = harness
        .get(&format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap()))
        .await;
    assert_eq!(seen["ping_count"], 0);
    assert_eq!(seen["status"], "new");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_headers_and_bodies_never_lose_a_ping() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let url = monitor["ping_url"].as_str().unwrap().to_owned();
    let id = monitor["id"].as_str().unwrap();
    let long = "x".repeat(5_000);

    let not_utf8 = [b"log \xff\xfe\x00 end".as_slice(), &[0xc3, 0x28]].concat();
    let requests = [
        harness
            .client
            .post(&url)
            .header("X-Forwarded-For", "garbage, [::1")
            .header("X-Forwarded-Proto", &long[..30]),
        harness
            .client
            .post(&url)
            .header("X-Forwarded-For", "10.0.0.1, [2001:db8::1]:443, 127.0.0.2"),
        harness.client.post(&url).header("User-Agent", &long),
        harness
            .client
            .post(format!("{url}?rid=&%ff=%zz").replace("rid=&", ""))
            .body("x"),
        harness.client.post(&url).body(not_utf8.clone()),
        harness.client.post(&url).body(vec![0xe2; 150_000]),
        harness.client.post(&url).body(vec![b'a'; 1_000_000]),
    ];
    let count = requests.len();
    for request in requests {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["ping-body-limit"], "100000");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert_eq!(answer.text().await.unwrap(), "OK");
    }

    let pings = harness.get(&format!("/api/v1/monitors/{id}/pings")).await;
    let pings = pings["pings"].as_array().unwrap();
    assert_eq!(pings.len(), count);
    let bytes: Vec<u64> = pings
        .iter()
        .map(|ping| ping["body_bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(bytes, [100_000, 100_000, not_utf8.len() as u64, 1, 0, 0, 0]);
    assert_eq!(pings[5]["remote_addr"], "2001:db8::1");
    assert_eq!(pings[6]["remote_addr"], "127.0.0.1");
    let body = harness
        .request(Method::GET, pings[2]["body_url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(body.bytes().await.unwrap(), not_utf8);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_creates_its_monitor_when_asked_to() {
    let harness = harness::start().await;
    let base = format!("/ping/{}", harness.ping_key);

    assert_eq!(
        text(&harness, Method::GET, &format!("{base}/new-job?create=0"))
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    let created = text(
        &harness,
        Method::GET,
        &format!("{base}/new-job?create=1&cron=0+2+*+*+*&tz=Europe/Berlin&grace=120&tags=prod+db"),
    )
    .await;
    assert_eq!(created, (StatusCode::CREATED, "Created".to_owned()));
    let again = text(
        &harness,
        Method::GET,
        &format!("{base}/new-job?create=1&period=60"),
    )
    .await;
    assert_eq!(again, (StatusCode::OK, "OK".to_owned()));
    let default = text(&harness, Method::GET, &format!("{base}/plain?create=1")).await;
    assert_eq!(default.0, StatusCode::CREATED);
    for bad in [
        "cron=99+*+*+*+*",
        "cron=0+2+*+*+*&tz=Nowhere/Land",
        "period=0.5",
        "grace=x",
        "cron=0+2+*+*+*&period=60",
    ] {
        let (status, line) = text(&harness, Method::GET, &format!("{base}/bad?create=1&{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {line}");
    }

    let monitors = harness.get("/api/v1/monitors").await;
    let monitors = monitors["monitors"].as_array().unwrap();
    assert_eq!(monitors.len(), 2);
    assert_eq!(monitors[0]["slug"], "plain");
    assert_eq!(
        monitors[0]["schedule"],
        json!({"kind": "interval", "seconds": 86_400})
    );
    assert_eq!(monitors[0]["grace_seconds"], 3_600);
    assert_eq!(monitors[1]["schedule"]["timezone"], "Europe/Berlin");
    assert_eq!(monitors[1]["tags"], json!(["prod", "db"]));
    assert_eq!(monitors[1]["ping_count"], 2);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_runs_at_once_are_judged_each_alone() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 3600}, "grace_seconds": 60, "longest_run_seconds": 2}))
        .await;
    let base = path_of(&monitor);
    let id = monitor["id"].as_str().unwrap();
    let (hangs, ends) = (Uuid::new_v4(), Uuid::new_v4());

    text(&harness, Method::GET, &format!("{base}/start?rid={hangs}")).await;
    text(&harness, Method::GET, &format!("{base}/start?rid={ends}")).await;
    text(&harness, Method::GET, &format!("{base}?rid={ends}")).await;
    let running = harness.get(&format!("/api/v1/monitors/{id}")).await;
    assert_eq!(
        (running["status"].as_str(), running["running"].as_bool()),
        (Some("up"), Some(true))
    );

    let incidents = harness
        .wait_for("/api/v1/incidents", |seen| {
            seen["incidents"].as_array().unwrap().len() == 1
        })
        .await;
    assert_eq!(incidents["incidents"][0]["cause"]["code"], "OVERRUN");
    let runs = harness.get(&format!("/api/v1/monitors/{id}/runs")).await;
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(
        (runs[0]["run_id"].as_str().unwrap(), runs[0]["status"].as_str()),
        (ends.to_string().as_str(), Some("success"))
    );
    assert!(runs[0]["duration_seconds"].as_f64().unwrap() < 2.0);
    assert_eq!(runs[1]["status"], "overrun");

    // The late end gives the run its length, and ends the incident.
    text(&harness, Method::GET, &format!("{base}?rid={hangs}")).await;
    let runs = harness.get(&format!("/api/v1/monitors/{id}/runs")).await;
    assert!(runs["runs"][1]["duration_seconds"].as_f64().unwrap() >= 2.0);
    let incident = harness.get("/api/v1/incidents").await;
    assert!(incident["incidents"][0]["resolved_at"].is_string());
    harness.stop().await;
}
