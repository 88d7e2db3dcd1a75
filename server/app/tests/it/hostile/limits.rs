//! The limits on what one leaked key can consume.

use std::net::TcpListener;

use deadbeat_app::{App, Parts};
use deadbeat_services::people::quota::QuotaSettings;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Caller;
use crate::harness::{self, Harness};

async fn start(quotas: QuotaSettings) -> Harness {
    harness::start_changed(|parts| Parts { quotas, ..parts }).await
}

async fn get(harness: &Harness, path: &str) -> Response {
    harness
        .client
        .get(format!("{}{path}", harness.url))
        .send()
        .await
        .unwrap()
}

fn wait(answer: &Response) -> u64 {
    answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_key_creates_so_many_monitors_a_day() {
    let harness = start(QuotaSettings {
        created_monitors_per_day: 5,
        ..QuotaSettings::default()
    })
    .await;
    let (other_key, other_ping_key) = harness.other_project().await;

    let mut statuses = Vec::new();
    for n in 0..8 {
        let path = format!("/ping/{}/job-{n}?create=1", harness.ping_key);
        statuses.push(get(&harness, &path).await.status().as_u16());
    }
    assert_eq!(statuses, [201, 201, 201, 201, 201, 429, 429, 429]);
    let refused = get(&harness, &format!("/ping/{}/job-7?create=1", harness.ping_key)).await;
    assert!((86_000..=86_400).contains(&wait(&refused)), "{}", wait(&refused));

    // The entries of a Beat count as monitors, too. Those within the limit are watched.
    let entry = |n: usize| json!({"name": format!("entry-{n}"), "schedule": {"kind": "interval", "seconds": 60}, "grace_seconds": 60});
    let schedule = |entries: Vec<Value>| {
        json!({"sent_at": "2026-03-01T02:00:00Z", "events": [{"id": Uuid::new_v4(), "type": "beat_schedule",
            "at": "2026-03-01T02:00:00Z", "beat": "shop", "entries": entries}]})
    };
    let batch = schedule((0..3).map(entry).collect());
    let answer = Caller::with_key(&harness, &harness.ping_key)
        .post("/api/v1/events", &batch)
        .await;
    assert_eq!(answer["results"][0]["code"], "some_entries", "{answer}");
    let batch = schedule((0..7).map(entry).collect());
    let answer = Caller::with_key(&harness, &other_ping_key)
        .post("/api/v1/events", &batch)
        .await;
    assert_eq!(answer["results"][0]["code"], "some_entries", "{answer}");
    let watched = Caller::with_key(&harness, &other_key)
        .pages("/api/v1/monitors", 50)
        .await;
    assert_eq!(watched.len(), 5);

    // Existing monitors receive pings as before, and a write key creates monitors as before.
    assert_eq!(
        get(&harness, &format!("/ping/{}/job-0?create=1", harness.ping_key))
            .await
            .status(),
        StatusCode::OK
    );
    harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    harness.stop().await;
}

/// A second process does not double the quota of a project.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_count_created_monitors_together() {
    let quotas = QuotaSettings {
        created_monitors_per_day: 10,
        ..QuotaSettings::default()
    };
    let harness = start(quotas).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("http://{}", listener.local_addr().unwrap());
    let parts = Parts::new(
        listener,
        harness.database_url.clone(),
        other.clone(),
        harness::senders(None),
    );
    let second = App::start(Parts { quotas, ..parts }).unwrap();

    let creates = (0..30).map(|n| {
        let site = if n % 2 == 0 { &harness.url } else { &other };
        let url = format!("{site}/ping/{}/job-{n}?create=1", harness.ping_key);
        harness.client.get(url).send()
    });
    let answers = futures::future::join_all(creates).await;
    let created = answers
        .iter()
        .filter(|answer| answer.as_ref().unwrap().status() == StatusCode::CREATED)
        .count();

    // A request that got no turn in time may be retried: it used nothing of the quota.
    let monitors = Caller::new(&harness).pages("/api/v1/monitors", 50).await;
    assert_eq!(monitors.len(), created);
    assert!((1..=10).contains(&created), "{created}");
    let mut later = 0;
    while get(
        &harness,
        &format!("/ping/{}/later-{later}?create=1", harness.ping_key),
    )
    .await
    .status()
        == StatusCode::CREATED
    {
        later += 1;
    }
    assert_eq!(created + later, 10);
    second.stop().await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_pings_are_refused_and_others_are_received() {
    let harness = start(QuotaSettings {
        pings_per_second: 1,
        ..QuotaSettings::default()
    })
    .await;
    let monitor = harness
        .monitor(json!({"slug": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let by_key = format!("/ping/{}/job", harness.ping_key);
    let by_id = monitor["ping_url"].as_str().unwrap()[harness.url.len()..].to_owned();

    let mut recorded = 0;
    let refused = loop {
        let answer = get(&harness, &by_key).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
        assert_eq!(answer.status(), StatusCode::OK);
        recorded += 1;
        assert!(recorded < 1_000, "nothing is refused");
    };
    assert!(recorded >= 20, "{recorded}: a burst passes");
    assert_eq!(wait(&refused), 1);
    assert_eq!(refused.text().await.unwrap(), "too many, try again later");

    assert_eq!(get(&harness, &by_id).await.status(), StatusCode::OK);
    let path = format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap());
    assert_eq!(harness.get(&path).await["ping_count"], recorded + 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_beyond_the_quota_of_bytes_counts_without_its_body() {
    let harness = start(QuotaSettings {
        // The body that crosses the quota still fits completely.
        body_bytes_per_day: 1,
        ..QuotaSettings::default()
    })
    .await;
    let monitor = harness
        .monitor(json!({"slug": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let url = monitor["ping_url"].as_str().unwrap();

    let mut limits = Vec::new();
    for _ in 0..3 {
        let answer = harness
            .client
            .post(url)
            .body(vec![b'x'; 100_000])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        limits.push(answer.headers()["ping-body-limit"].to_str().unwrap().to_owned());
    }

    assert_eq!(limits, ["100000", "0", "0"]);
    let path = format!("/api/v1/monitors/{}/pings", monitor["id"].as_str().unwrap());
    let pings = harness.get(&path).await;
    let bytes: Vec<&Value> = pings["pings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ping| &ping["body_bytes"])
        .collect();
    assert_eq!(bytes, [&json!(0), &json!(0), &json!(100_000)]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_key_issues_so_many_keys_a_day_and_so_many_at_all() {
    let harness = start(QuotaSettings {
        api_keys_per_day: 5,
        ..QuotaSettings::default()
    })
    .await;
    let caller = Caller::new(&harness);
    let new = json!({"name": "CI", "scope": "read"});

    // Of many concurrent requests, none exceeds the limit.
    let issues = (0..12).map(|_| caller.json(Method::POST, "/api/v1/api-keys", &new));
    let answers = futures::future::join_all(issues).await;
    let issued = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::CREATED)
        .count();
    assert_eq!(issued, 5);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == StatusCode::CREATED || answer.code() == "too_many_requests")
    );

    // Revoked keys count for the day, and not for the days after it.
    sqlx::query("UPDATE quota SET ends_at = ends_at - interval '1 day'")
        .execute(&harness.pool)
        .await
        .unwrap();
    assert_eq!(
        caller.json(Method::POST, "/api/v1/api-keys", &new).await.status,
        StatusCode::CREATED
    );
    sqlx::query(
        "INSERT INTO api_key (id, project_id, name, scope, prefix, digest, created_at)
        SELECT gen_random_uuid(), id, 'x', 'ping', 'dbp_', sha256(n::text::bytea), now() FROM project, generate_series(1, 1000) n",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    let refused = caller.json(Method::POST, "/api/v1/api-keys", &new).await;
    assert_eq!(refused.code(), "limit_reached");
    harness.stop().await;
}
