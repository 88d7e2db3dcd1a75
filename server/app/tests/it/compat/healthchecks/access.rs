//! Keys, other projects, methods.

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::{ALWAYS, Client, order, path_of};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_read_sees_no_ping_url() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let check = client.check(&json!({"name": "a", "channels": "*"})).await;
    let reader = client.with_key(Some(&harness.read_key));

    let listed = reader.get("checks/").await;

    let expected: Vec<&str> = [&["checks"], ALWAYS, &["unique_key", "timeout"]].concat();
    assert_eq!(order(&listed.text), expected);
    assert!(!listed.text.contains(check["uuid"].as_str().unwrap()));
    let one = &listed.json()["checks"][0];
    let key = one["unique_key"].as_str().unwrap();
    assert!(key.len() == 40 && key.bytes().all(|b| b.is_ascii_hexdigit()));
    for client in [&reader, &client] {
        let found = client.get(&format!("checks/{key}")).await;
        assert_eq!((found.status, &found.json()["name"]), (200, &json!("a")));
        let flips = client.get(&format!("checks/{key}/flips/")).await;
        assert_eq!((flips.status, flips.text.as_str()), (200, r#"{"flips": []}"#));
    }
    let nobody = format!("checks/{}", "0".repeat(40));
    assert_eq!(reader.get(&nobody).await.status, 404);
    // What needs a key that may write.
    for (method, path) in [
        (Method::POST, "checks/".to_owned()),
        (Method::POST, path_of(&check)),
        (Method::DELETE, path_of(&check)),
        (Method::POST, format!("{}/pause", path_of(&check))),
        (Method::POST, format!("{}/resume", path_of(&check))),
        (Method::GET, format!("{}/pings/", path_of(&check))),
        (Method::GET, format!("{}/pings/1/body", path_of(&check))),
        (Method::GET, "channels/".to_owned()),
    ] {
        let refused = reader.raw(method.clone(), &path, None).await;
        let expected = (401, r#"{"error": "wrong api key"}"#);
        assert_eq!(
            (refused.status, refused.text.as_str()),
            expected,
            "{method} {path}"
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_asks_for_a_key_and_shows_nothing_of_another_project() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let check = client.check(&json!({"name": "a"})).await;
    let path = path_of(&check);
    let (their_key, their_ping_key) = harness.other_project().await;
    let endpoints = [
        (Method::GET, "checks/".to_owned(), 200),
        (Method::POST, "checks/".to_owned(), 201),
        (Method::GET, path.clone(), 404),
        (Method::POST, path.clone(), 404),
        (Method::DELETE, path.clone(), 404),
        (Method::POST, format!("{path}/pause"), 404),
        (Method::POST, format!("{path}/resume"), 404),
        (Method::GET, format!("{path}/pings/"), 404),
        (Method::GET, format!("{path}/pings/1/body"), 404),
        (Method::GET, format!("{path}/flips/"), 404),
        (Method::GET, "channels/".to_owned(), 200),
        (Method::GET, "badges/".to_owned(), 200),
    ];
    let missing = (401, r#"{"error": "missing api key"}"#);
    let wrong = (401, r#"{"error": "wrong api key"}"#);
    let unknown = format!("dbw_{}", &harness.api_key[4..].chars().rev().collect::<String>());
    for version in ["v1", "v2", "v3"] {
        for (method, path, of_others) in &endpoints {
            let client = client.of(version);
            for (key, expected) in [
                (None, missing),
                (Some(""), missing),
                (Some("short"), missing),
                (Some(unknown.as_str()), wrong),
                (Some(harness.ping_key.as_str()), wrong),
            ] {
                let reply = client.with_key(key).raw(method.clone(), path, None).await;
                let found = (reply.status, reply.text.as_str());
                assert_eq!(found, expected, "{version} {method} {path} {key:?}");
                assert_eq!(reply.headers["access-control-allow-origin"], "*");
            }
            let theirs = client.with_key(Some(&their_key));
            let reply = theirs.raw(method.clone(), path, None).await;
            assert_eq!(
                reply.status, *of_others,
                "{version} {method} {path}: {}",
                reply.text
            );
            if *of_others == 404 {
                assert_eq!(reply.text, r#"{"error": "not found"}"#);
            }
            assert!(!reply.text.contains(check["uuid"].as_str().unwrap()));
        }
    }
    let reply = client.get(&path).await;
    assert_eq!(reply.status, 200, "it is still there");
    assert!(!reply.text.contains(&their_ping_key));
    // The key may stand in the body.
    let body = json!({"api_key": harness.api_key, "name": "by its body"});
    assert_eq!(client.with_key(None).post("checks/", &body).await.status, 201);
    let body = json!({"api_key": harness.read_key, "name": "by its body"});
    assert_eq!(client.with_key(None).post("checks/", &body).await.text, wrong.1);
    let body = json!({"api_key": 5, "name": "by its body"});
    assert_eq!(client.with_key(None).post("checks/", &body).await.text, missing.1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_a_path_does_not_take_are_refused_and_preflights_answered() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let id = Uuid::new_v4();
    for (path, allowed) in [
        ("checks/".to_owned(), "GET, POST, OPTIONS"),
        ("checks".to_owned(), "GET, POST, OPTIONS"),
        (format!("checks/{id}"), "GET, POST, DELETE, OPTIONS"),
        (format!("checks/{id}/pause"), "POST, OPTIONS"),
        (format!("checks/{id}/resume"), "POST, OPTIONS"),
        (format!("checks/{id}/pings/"), "GET, OPTIONS"),
        (format!("checks/{id}/pings/1/body"), "GET, OPTIONS"),
        (format!("checks/{id}/flips/"), "GET, OPTIONS"),
        ("channels/".to_owned(), "GET, OPTIONS"),
        ("badges/".to_owned(), "GET, OPTIONS"),
        ("status/".to_owned(), "GET, OPTIONS"),
    ] {
        for (method, status) in [
            (Method::OPTIONS, 204),
            (Method::PUT, 405),
            (Method::PATCH, 405),
            (Method::HEAD, 405),
        ] {
            let reply = client.with_key(None).raw(method.clone(), &path, None).await;
            assert_eq!(
                (reply.status, reply.text.as_str()),
                (status, ""),
                "{method} {path}"
            );
            let header = |name: &str| reply.headers[name].to_str().unwrap();
            assert_eq!(header("access-control-allow-methods"), allowed, "{path}");
            assert_eq!(header("access-control-allow-origin"), "*");
            assert!(header("access-control-allow-headers").starts_with("X-Api-Key"));
            assert_eq!(header("access-control-max-age"), "600");
        }
    }
    for bad in [
        id.to_string().to_uppercase(),
        id.simple().to_string(),
        "x".to_owned(),
        "%00".to_owned(),
        "%ff".to_owned(),
    ] {
        let reply = client.get(&format!("checks/{bad}")).await;
        let expected = (404, r#"{"error": "not found"}"#);
        assert_eq!((reply.status, reply.text.as_str()), expected, "{bad}");
    }
    for version in ["v2", "v3"] {
        let reply = client.of(version).get("nothing/").await;
        assert_eq!(
            (reply.status, reply.text.as_str()),
            (404, r#"{"error": "not found"}"#)
        );
    }
    let status = client.with_key(None).get("status/").await;
    assert_eq!((status.status, status.text.as_str()), (200, "OK"));
    assert_eq!(client.get("metrics/").await.status, 403);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_header_is_no_fault_of_the_server() {
    let harness = harness::start().await;
    let url = format!("{}/api/v3/checks/", harness.url);
    let odd = HeaderValue::from_bytes(b"dbw_\xff").unwrap();
    let answer = harness
        .client
        .get(&url)
        .header("X-Api-Key", odd)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.text().await.unwrap(), r#"{"error": "missing api key"}"#);
    harness.stop().await;
}
