//! Small requests that are expensive to handle.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::CONTENT_ENCODING;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{self, Harness};

fn gzip(text: &str) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

async fn send(harness: &Harness, body: Vec<u8>) -> Response {
    harness
        .client
        .post(format!("{}/api/v1/events", harness.url))
        .bearer_auth(&harness.ping_key)
        .header(CONTENT_ENCODING, "gzip")
        .body(body)
        .send()
        .await
        .unwrap()
}

/// Returns `times` empty JSON objects.
fn empty_objects(times: usize) -> String {
    vec!["{}"; times].join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_does_not_need_is_not_built() {
    let harness = harness::start().await;
    let batch = gzip(&format!(
        r#"{{"sent_at":"2026-03-01T02:00:00Z","events":[],"sdk":[{}]}}"#,
        empty_objects(1_300_000)
    ));
    assert!(batch.len() < 10_000, "{}", batch.len());

    let start = Instant::now();
    let answer = send(&harness, batch).await;
    println!(
        "sdk of a million: {} after {:?}",
        answer.status(),
        start.elapsed()
    );

    assert_eq!(answer.status(), StatusCode::OK);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_too_many_events_is_refused_at_the_first_that_is_too_many() {
    let harness = harness::start().await;
    // After the first 1,001 events, the text is not JSON. A server that read on would find that fault.
    let batch = gzip(&format!(
        r#"{{"sent_at":"2026-03-01T02:00:00Z","events":[{},nonsense"#,
        empty_objects(1_001)
    ));

    let start = Instant::now();
    let answer = send(&harness, batch).await;
    println!("too many events: {} after {:?}", answer.status(), start.elapsed());

    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "invalid_fields", "{problem}");
    assert_eq!(problem["errors"][0]["pointer"], "/events", "{problem}");
    assert!(
        problem["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("at most 1000"),
        "{problem}"
    );
    harness.stop().await;
}

/// Many expensive batches arrive at once, and the server answers a ping meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_while_costly_batches_are_read() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let batch = gzip(&format!(
        r#"{{"sent_at":"2026-03-01T02:00:00Z","events":[],"sdk":[{}]}}"#,
        empty_objects(1_300_000)
    ));

    let batches = futures::future::join_all((0..24).map(|_| send(&harness, batch.clone())));
    let pings = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let start = Instant::now();
            let answer = harness.client.get(monitor["ping_url"].as_str().unwrap()).send();
            assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
            slowest = slowest.max(start.elapsed());
        }
        slowest
    };
    let (answers, slowest) = futures::future::join(batches, pings).await;
    println!("slowest of 20 pings: {slowest:?}");

    for answer in answers {
        let status = answer.status();
        assert!(
            status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE,
            "{status}"
        );
    }
    harness.stop().await;
}

/// A schedule of 240 entries, which counts as a large batch. Its sender waits until the server has applied it.
fn large_schedule(beat: &str) -> Vec<u8> {
    let entries: Vec<Value> = (0..240)
        .map(|number| {
            json!({
                "name": format!("entry {number}"), "task": "t".repeat(200), "grace_seconds": 60,
                "schedule": {"kind": "interval", "seconds": 3600}
            })
        })
        .collect();
    let at = "2026-03-01T02:00:00Z";
    let event =
        json!({"id": Uuid::new_v4(), "at": at, "type": "beat_schedule", "beat": beat, "entries": entries});
    let batch = json!({"sent_at": at, "events": [event]}).to_string();
    assert!(batch.len() > 65_536, "{}", batch.len());
    gzip(&batch)
}

/// There are as many batches as turns. Each batch holds its turn for as long as its Beat's row is locked.
#[tokio::test(flavor = "multi_thread")]
async fn large_batches_of_one_project_leave_a_turn_for_another() {
    let harness = harness::start().await;
    let (_, other_key) = harness.other_project().await;
    let first = send(&harness, large_schedule("held")).await;
    assert_eq!(first.status(), StatusCode::OK);
    let mut holds = harness.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM beat FOR UPDATE")
        .execute(&mut *holds)
        .await
        .unwrap();

    let held = futures::future::join_all((0..4).map(|_| send(&harness, large_schedule("held"))));
    let other = async {
        let is_held = || async {
            sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&harness.pool)
            .await
            .unwrap()
        };
        let start = Instant::now();
        while is_held().await == 0 {
            assert!(start.elapsed() < harness::LIMIT, "no request waits for the Beat");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = harness
            .client
            .post(format!("{}/api/v1/events", harness.url))
            .bearer_auth(&other_key)
            .header(CONTENT_ENCODING, "gzip")
            .body(large_schedule("of another"))
            .send()
            .await
            .unwrap();
        let status = answer.status();
        holds.rollback().await.unwrap();
        status
    };
    let (held, other) = futures::future::join(held, other).await;

    assert_eq!(other, StatusCode::OK);
    for answer in held {
        let status = answer.status();
        assert!(
            status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE,
            "{status}"
        );
    }
    harness.stop().await;
}
