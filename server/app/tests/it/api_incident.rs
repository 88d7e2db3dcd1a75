//! `/api/v1/incidents` and their subresources: lists, acknowledgement and deliveries.

mod callback;

use deadbeat_testkit::receiver::Receiver;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Caller;
use crate::harness::{self, Harness, LIMIT};

async fn monitor(caller: &Caller<'_>, name: &str) -> Value {
    caller
        .post(
            "/api/v1/monitors",
            &json!({"name": name, "schedule": {"kind": "interval", "seconds": 3600}}),
        )
        .await
}

async fn ping(harness: &Harness, monitor: &Value, action: &str) {
    let answer = harness
        .client
        .get(format!("{}{action}", monitor["ping_url"].as_str().unwrap()))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_opens_one_incident_that_says_why_and_a_success_resolves_it() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let job = monitor(&caller, "Job").await;

    for action in [&format!("/start?rid={}", Uuid::new_v4()), "/3", "/fail", "/255"] {
        ping(&harness, &job, action).await;
    }

    let open = caller.pages("/api/v1/incidents?state=open", 1).await;
    assert_eq!(open.len(), 1);
    let incident = &open[0];
    assert_eq!(
        incident["subject"],
        json!({"kind": "monitor", "id": job["id"], "name": "Job"})
    );
    assert_eq!(incident["cause"]["code"], "FAILED");
    assert_eq!(incident["cause"]["url"], format!("{}/causes/FAILED", harness.url));
    assert!(
        !incident["evidence"].as_array().unwrap().is_empty()
            && !incident["repair"].as_array().unwrap().is_empty()
    );
    assert_eq!(
        (&incident["resolved_at"], &incident["members"]),
        (&Value::Null, &json!([]))
    );
    let at = format!("/api/v1/incidents/{}", incident["id"].as_str().unwrap());
    assert_eq!(&caller.get(&at).await, incident);

    ping(&harness, &job, "").await;
    assert!(caller.get(&at).await["resolved_at"].is_string());
    assert_eq!(caller.pages("/api/v1/incidents?state=open", 1).await.len(), 0);
    ping(&harness, &job, "/fail").await;
    assert_eq!(caller.pages("/api/v1/incidents", 1).await.len(), 2);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_are_narrowed_and_paged() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let mut monitors = Vec::new();
    for number in 0..7 {
        let one = monitor(&caller, &format!("m{number}")).await;
        ping(&harness, &one, "/fail").await;
        if number % 2 == 0 {
            ping(&harness, &one, "").await;
        }
        monitors.push(one);
    }
    let subject = |incident: &Value| incident["subject"]["name"].as_str().unwrap().to_owned();

    for limit in [1, 2, 50] {
        let all: Vec<String> = caller
            .pages("/api/v1/incidents", limit)
            .await
            .iter()
            .map(subject)
            .collect();
        assert_eq!(all, ["m6", "m5", "m4", "m3", "m2", "m1", "m0"]);
        let open: Vec<String> = caller
            .pages("/api/v1/incidents?state=open", limit)
            .await
            .iter()
            .map(subject)
            .collect();
        assert_eq!(open, ["m5", "m3", "m1"]);
        let resolved = caller.pages("/api/v1/incidents?state=resolved", limit).await;
        assert_eq!(resolved.len(), 4);
        let of = format!(
            "/api/v1/incidents?subject_id={}",
            monitors[3]["id"].as_str().unwrap()
        );
        let of: Vec<String> = caller.pages(&of, limit).await.iter().map(subject).collect();
        assert_eq!(of, ["m3"]);
    }
    assert_eq!(
        caller
            .pages(&format!("/api/v1/incidents?subject_id={}", Uuid::new_v4()), 5)
            .await
            .len(),
        0
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_incident_keeps_its_first_time_and_is_not_reported_again() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let job = monitor(&caller, "Job").await;
    ping(&harness, &job, "/fail").await;
    let id = caller.get("/api/v1/incidents").await["incidents"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let at = format!("/api/v1/incidents/{id}/acknowledge");

    let first = caller.post(&at, &Value::Null).await;
    let second = caller.post(&at, &Value::Null).await;

    assert!(first["acknowledged_at"].is_string());
    assert_eq!(first, second);
    let remind_at: Option<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("SELECT remind_at FROM incident")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(remind_at, None);
    let reader = Caller::with_key(&harness, &harness.read_key);
    assert_eq!(reader.call(Method::POST, &at).await.status, StatusCode::FORBIDDEN);
    for id in ["x", "%00", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(
            caller
                .call(Method::GET, &format!("/api/v1/incidents/{id}"))
                .await
                .status,
            StatusCode::NOT_FOUND
        );
        assert_eq!(
            caller
                .call(Method::POST, &format!("/api/v1/incidents/{id}/acknowledge"))
                .await
                .status,
            StatusCode::NOT_FOUND
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_show_which_alert_went_where_and_how_it_ended() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    let body = |name: &str| json!({"kind": "webhook", "name": name, "settings": {"url": receiver.url("/")}});
    let first = caller.post("/api/v1/channels", &body("first")).await;
    caller.post("/api/v1/channels", &body("second")).await;
    let job = monitor(&caller, "Job").await;
    ping(&harness, &job, "/fail").await;
    ping(&harness, &job, "").await;
    receiver.wait_for(4, LIMIT).await;
    harness
        .wait_for("/api/v1/deliveries?status=sent", |seen| {
            seen["deliveries"].as_array().unwrap().len() == 4
        })
        .await;

    let incident = caller.get("/api/v1/incidents").await["incidents"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (query, count) in [
        ("status=sent".to_owned(), 4),
        ("status=dead".to_owned(), 0),
        ("status=pending".to_owned(), 0),
        ("status=cancelled".to_owned(), 0),
        (format!("incident_id={incident}"), 4),
        (format!("incident_id={}", Uuid::new_v4()), 0),
        (format!("channel_id={}", first["id"].as_str().unwrap()), 2),
        (
            format!(
                "channel_id={}&incident_id={incident}&status=sent",
                first["id"].as_str().unwrap()
            ),
            2,
        ),
    ] {
        for limit in [1, 3, 50] {
            assert_eq!(
                caller
                    .pages(&format!("/api/v1/deliveries?{query}"), limit)
                    .await
                    .len(),
                count,
                "{query}"
            );
        }
    }
    let of = format!("/api/v1/deliveries?channel_id={}", first["id"].as_str().unwrap());
    let alerts: Vec<Value> = caller
        .pages(&of, 1)
        .await
        .into_iter()
        .map(|one| one["alert"].clone())
        .collect();
    assert_eq!(alerts, ["resolved", "opened"]);
    // The removal of a channel removes its deliveries, and the incident stays.
    caller
        .call(
            Method::DELETE,
            &format!("/api/v1/channels/{}", first["id"].as_str().unwrap()),
        )
        .await;
    assert_eq!(caller.pages("/api/v1/deliveries", 50).await.len(), 2);
    for id in ["x", "%00", "00000000-0000-0000-0000-000000000000"] {
        for rest in ["", "/attempts"] {
            assert_eq!(
                caller
                    .call(Method::GET, &format!("/api/v1/deliveries/{id}{rest}"))
                    .await
                    .status,
                StatusCode::NOT_FOUND
            );
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_runs_are_paged_newest_first() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let job = monitor(&caller, "Job").await;
    for number in 0..11 {
        ping(&harness, &job, &format!("/{number}?rid={}", Uuid::new_v4())).await;
    }
    let at = format!("/api/v1/monitors/{}", job["id"].as_str().unwrap());

    for limit in [1, 3, 10, 11, 12] {
        let codes = |rows: Vec<Value>| {
            rows.iter()
                .map(|row| row["exit_code"].as_i64().unwrap())
                .collect::<Vec<_>>()
        };
        let expected: Vec<i64> = (0..11).rev().collect();
        assert_eq!(codes(caller.pages(&format!("{at}/pings"), limit).await), expected);
        assert_eq!(codes(caller.pages(&format!("{at}/runs"), limit).await), expected);
    }
    harness.stop().await;
}
