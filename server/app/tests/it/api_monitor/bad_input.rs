//! Bad input: the answer names each fault, and the server writes nothing.

mod fields;

use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::{hourly, path};
use crate::contract::{Caller, dump};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_slug_is_not_upserted() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let before = dump(&harness).await;

    let uuid = Uuid::new_v4().to_string();
    let long = "x".repeat(101);
    for slug in [
        "Upper",
        "%00",
        "a%00b",
        "%ff",
        "sl%20ug",
        "%2e%2e%2e",
        "ü",
        &uuid,
        &long,
        "a%2Fb",
        "%0a",
        "'--",
    ] {
        let answer = caller
            .json(
                Method::PUT,
                &format!("/api/v1/monitors/{slug}"),
                &json!({"schedule": hourly()}),
            )
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "invalid_fields"),
            "{slug}: {}",
            answer.json
        );
        assert_eq!(answer.json["errors"][0]["pointer"], "/slug", "{slug}");
    }
    let differs = caller
        .json(
            Method::PUT,
            "/api/v1/monitors/a",
            &json!({"slug": "b", "schedule": hourly()}),
        )
        .await;
    assert_eq!(differs.status, StatusCode::BAD_REQUEST);
    let no_schedule = caller
        .json(Method::PUT, "/api/v1/monitors/a", &json!({"name": "a"}))
        .await;
    assert_eq!(
        (
            no_schedule.status,
            no_schedule.json["errors"][0]["pointer"].as_str()
        ),
        (StatusCode::BAD_REQUEST, Some("/schedule"))
    );
    assert_eq!(dump(&harness).await, before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_id_is_nobodys() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);

    for id in [
        "x",
        "%00",
        "0",
        "-1",
        "null",
        "%ff",
        "00000000-0000-0000-0000-00000000000g",
        "..%2f",
        "%27",
        &"a".repeat(3_000),
    ] {
        for (method, rest) in [
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::GET, "/pings"),
            (Method::GET, "/runs"),
            (Method::GET, "/pings/1/body"),
            (Method::POST, "/pause"),
            (Method::POST, "/resume"),
        ] {
            let answer = caller
                .call(method.clone(), &format!("/api/v1/monitors/{id}{rest}"))
                .await;
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::NOT_FOUND, "not_found"),
                "{method} {id}{rest}"
            );
        }
    }
    let monitor = caller
        .post("/api/v1/monitors", &json!({"name": "Job", "schedule": hourly()}))
        .await;
    for n in [
        "0",
        "-1",
        "1",
        "99999999999999999999",
        "9223372036854775807",
        "-9223372036854775808",
        "x",
        "%00",
        "1.0",
    ] {
        let answer = caller
            .call(Method::GET, &format!("{}/pings/{n}/body", path(&monitor)))
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{n}");
    }
    for cursor in ["0", "-5", "9223372036854775807", "-9223372036854775808"] {
        let page = caller
            .get(&format!("{}/pings?cursor={cursor}", path(&monitor)))
            .await;
        assert_eq!(page["pings"], json!([]));
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn null_is_refused_where_it_means_nothing_and_changes_nothing() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}, "longest_run_seconds": 30}))
        .await;
    let path = format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap());

    for field in ["name", "slug", "schedule", "grace_seconds", "tags", "channels"] {
        let (status, problem) = harness
            .send(Method::PATCH, &path, &json!({"name": "Changed", field: null}))
            .await;
        assert_eq!(status, 400, "{field}: {problem}");
        assert!(
            problem["errors"][0]["pointer"]
                .as_str()
                .unwrap()
                .starts_with(&format!("/{field}")),
            "{problem}"
        );
    }
    assert_eq!(harness.get(&path).await["name"], "Job");

    let (status, changed) = harness
        .send(Method::PATCH, &path, &json!({"longest_run_seconds": null}))
        .await;
    assert_eq!(
        (status.as_u16(), &changed["longest_run_seconds"]),
        (200, &serde_json::Value::Null)
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_learns_which_are_right() {
    let harness = harness::start().await;

    for (path, allowed) in [
        ("/api/v1/monitors", "GET, POST"),
        ("/api/v1/events", "POST"),
        ("/readyz", "GET, HEAD"),
    ] {
        let answer = harness.request(Method::DELETE, path).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
        assert_eq!(answer.headers()["allow"], allowed, "{path}");
    }
    harness.stop().await;
}
