//! Bad bodies, sent to every operation that takes a body: the server answers that the client is at fault, and changes nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::caller::{Caller, dump};
use super::document::contract;
use crate::harness;

/// Bodies that are not an object, or not JSON at all.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("empty", Vec::new()),
        ("blank", text(" \n\t ")),
        ("cut", text("{")),
        ("cut text", text(r#"{"name": "x"#)),
        ("list", text("[]")),
        (
            "list by position",
            text(r#"["x", "write", {"url": "https://example.org"}, 1, 2, [], "all"]"#),
        ),
        ("list of an object", text(r#"[{"name": "x"}]"#)),
        ("a key as a list", text(r#"["x", "write"]"#)),
        ("a batch as a list", text(r#"["2026-01-01T00:00:00Z", []]"#)),
        ("text", text(r#""x""#)),
        ("number", text("5")),
        ("null", text("null")),
        ("true", text("true")),
        ("NaN", text("NaN")),
        ("NaN as a value", text(r#"{"name": NaN}"#)),
        ("infinity", text(r#"{"grace_seconds": Infinity}"#)),
        ("1e400", text(r#"{"grace_seconds": 1e400}"#)),
        ("single quotes", text("{'name': 'x'}")),
        ("comment", text("{/* */}")),
        ("comma at the end", text(r#"{"name": "x",}"#)),
        ("two objects", text("{}{}")),
        ("something behind", text("{} x")),
        ("byte order mark", text("\u{feff}{}")),
        ("not UTF-8", b"{\"name\": \"\xff\xfe\"}".to_vec()),
        ("UTF-16", b"{\0}\0".to_vec()),
        ("raw NUL", b"{\"name\": \"a\0b\"}".to_vec()),
        ("raw newline", b"{\"name\": \"a\nb\"}".to_vec()),
        ("half a surrogate", text(r#"{"name": "\ud800"}"#)),
        ("unknown field", text(r#"{"nickname": "x"}"#)),
        ("unknown field with NUL", text(r#"{"\u0000": "x"}"#)),
        ("same field twice", text(r#"{"name": "x", "name": "y"}"#)),
        ("form", text("name=x&scope=write")),
        (
            "10,000 lists",
            [
                text(r#"{"name": "#),
                b"[".repeat(10_000),
                b"]".repeat(10_000),
                text("}"),
            ]
            .concat(),
        ),
        ("10,000 open lists", b"[".repeat(10_000)),
        (
            "10,000 objects",
            [br#"{"settings":"#.repeat(10_000), text("1"), b"}".repeat(10_000)].concat(),
        ),
        (
            "200 lists in a value",
            [
                text(r#"{"schedule": "#),
                b"[".repeat(200),
                b"]".repeat(200),
                text("}"),
            ]
            .concat(),
        ),
        ("too large", vec![b' '; 1_000_001]),
        (
            "a large text",
            [text(r#"{"name": ""#), vec![b'x'; 1_500_000], text(r#""}"#)].concat(),
        ),
        ("far too large", vec![b'['; 12_000_000]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_malformed_body_is_taken_anywhere() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let schedule = json!({"kind": "interval", "seconds": 60});
    let monitor = caller
        .post("/api/v1/monitors", &json!({"name": "Job", "schedule": schedule}))
        .await;
    let settings = json!({"url": "https://example.org/"});
    let channel = caller
        .post(
            "/api/v1/channels",
            &json!({"kind": "webhook", "name": "Hook", "settings": settings}),
        )
        .await;
    let window =
        json!({"name": "Move", "starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-02T00:00:00Z"});
    let window = caller.post("/api/v1/maintenance-windows", &window).await;
    let key = caller
        .post("/api/v1/api-keys", &json!({"name": "Key", "scope": "read"}))
        .await;
    let members = caller.get("/api/v1/members").await;
    let before = dump(&harness).await;

    let operations: Vec<_> = contract()
        .operations()
        .into_iter()
        .filter(|one| contract().wants_json(one))
        .collect();
    assert_eq!(operations.len(), 20);
    for operation in operations {
        let of = if operation.path.contains("channels") {
            &channel["id"]
        } else if operation.path.contains("windows") {
            &window["id"]
        } else if operation.path.contains("members") {
            &members["members"][0]["id"]
        } else if operation.path.contains("api-keys") {
            &key["id"]
        } else {
            &monitor["id"]
        };
        let target = if operation.method == "put" {
            "new-slug"
        } else {
            of.as_str().unwrap()
        };
        let path = operation.path.replace("{id}", target);
        let key = if contract().scope(&operation).as_deref() == Some("ping") {
            &harness.ping_key
        } else {
            &harness.api_key
        };
        for (what, body) in malformed() {
            let url = format!("{}{path}", harness.url);
            let request = harness
                .client
                .request(operation.http_method(), url)
                .bearer_auth(key);
            let large = body.len() > 1_000_000;
            let answer = caller
                .send(request.header("Content-Type", "application/json").body(body))
                .await;
            let expected = if large {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            assert_eq!(answer.status, expected, "{operation}: {what}: {}", answer.json);
            let codes: &[&str] = if large {
                &["body_too_large"]
            } else {
                &["invalid_json", "invalid_fields"]
            };
            assert!(
                codes.contains(&answer.code()),
                "{operation}: {what}: {}",
                answer.json
            );
        }
    }

    assert_eq!(dump(&harness).await, before);
    assert_eq!(caller.call(Method::GET, "/healthz").await.status, StatusCode::OK);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_type_does_not_matter_and_a_body_that_breaks_off_changes_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let body = r#"{"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}"#;

    let answer = caller
        .send(
            caller
                .request(Method::POST, "/api/v1/monitors")
                .header("Content-Type", "text/plain")
                .body(body),
        )
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let before = dump(&harness).await;
    let address = harness.url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/monitors HTTP/1.1\r\nHost: x\r\nX-Api-Key: {}\r\nContent-Length: 500\r\n\r\n",
        harness.api_key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The server may close the connection without an answer.
    let _ = stream.read_to_end(&mut answer).await;

    assert!(
        !answer.starts_with(b"HTTP/1.1 2") && !answer.starts_with(b"HTTP/1.1 5"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(dump(&harness).await, before);
    let monitors: Value = caller.get("/api/v1/monitors").await;
    assert_eq!(monitors["monitors"].as_array().unwrap().len(), 1);
    harness.stop().await;
}
