//! No answer and no page contains a secret of a channel, whatever its kind.

use std::net::TcpListener;

use deadbeat_app::{App, Parts};
use deadbeat_services::alert::delivery::senders::{KINDS, Kind};
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_testkit::receiver::{Receiver, Reply};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract::Caller;
use crate::harness::{self, Harness, LIMIT};
use crate::web_dashboard::Browser;

/// A part of every secret in these tests.
const MARK: &str = "S3CRETmarkS3CRET";

/// Returns an example of a new channel from the documentation of its kind. Each secret contains [`MARK`], and each web address points to this
/// machine.
fn marked(kind: &dyn Kind, receiver: &Receiver) -> Value {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/channels");
    let page = std::fs::read_to_string(format!("{pages}/{}.md", kind.name())).unwrap();
    let block = page
        .split("```json\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut new: Value = serde_json::from_str(block).unwrap();
    for (field, value) in new["settings"].as_object_mut().unwrap() {
        let is_secret = kind.secrets().contains(&field.as_str());
        let text = value.as_str().unwrap_or_default();
        if text.starts_with("http") {
            let path = if is_secret {
                format!("/hooks/{MARK}-0123")
            } else {
                String::new()
            };
            *value = json!(receiver.url(&path));
        } else if field == "auth" {
            // A browser's secret is 16 bytes, so there is no room for more than the mark.
            *value = json!(format!("{MARK}01234A"));
        } else if is_secret {
            *value = json!(format!("{text}-{MARK}-0123"));
        }
    }
    new
}

/// Returns every answer and page that could contain a channel, a delivery or a message.
async fn everything(harness: &Harness, caller: &Caller<'_>) -> Vec<(String, String)> {
    let mut paths: Vec<String> = ["channels", "deliveries", "incidents", "monitors"]
        .map(|list| format!("/api/v1/{list}"))
        .to_vec();
    for (list, key, more) in [
        ("/api/v1/channels", "channels", &[""][..]),
        ("/api/v1/deliveries", "deliveries", &["", "/attempts"]),
    ] {
        for one in caller.get(list).await[key].as_array().unwrap() {
            let id = one["id"].as_str().unwrap();
            paths.extend(more.iter().map(|more| format!("{list}/{id}{more}")));
        }
    }
    let mut texts = Vec::new();
    for path in paths {
        texts.push((path.clone(), caller.get(&path).await.to_string()));
    }
    let mut browser = Browser::signed_in(harness).await;
    for path in ["/", "/celery", "/runs", "/tasks", "/metrics", "/readyz"] {
        texts.push((path.to_owned(), browser.get(path).await.text().await.unwrap()));
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_and_no_page_has_a_secret_of_any_kind() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::answering(Reply::status(410).repeating()).await;
    let mut made = Vec::new();
    caller.get("/api/v1/push-key").await;

    for kind in KINDS {
        let new = marked(*kind, &receiver);
        let written = caller.post("/api/v1/channels", &new).await;
        let at = format!("/api/v1/channels/{}", written["id"].as_str().unwrap());
        let secret = written["signing_secret"].as_str().map(str::to_owned);
        let shown = &written["settings"];
        // A kind may offer several ways to send, each with a secret of its own.
        let given = kind
            .secrets()
            .iter()
            .filter(|field| new["settings"].get(**field).is_some());
        for field in given.clone() {
            assert_ne!(shown[field], new["settings"][field], "{}: {field}", kind.name());
            assert!(
                shown[field].as_str().unwrap().contains('…'),
                "{}: {shown}",
                kind.name()
            );
        }
        // An unknown setting makes the server answer with a fault of the settings.
        let mut odd = new["settings"].clone();
        odd["carrier_pigeon"] = json!(true);
        let refused = caller.json(Method::PATCH, &at, &json!({"settings": odd})).await;
        assert_eq!(refused.code(), "invalid_fields");
        let mut number = new.clone();
        for field in given {
            number["settings"][field] = json!([new["settings"][field]]);
        }
        let wrong = caller.json(Method::POST, "/api/v1/channels", &number).await;
        let kept = caller.json(Method::PATCH, &at, &json!({"settings": shown})).await;
        assert_eq!(
            kept.status,
            StatusCode::OK,
            "{}: the server accepts its own masks",
            kind.name()
        );
        for text in [&refused.json, &wrong.json, &kept.json] {
            assert!(!text.to_string().contains(MARK), "{}: {text}", kind.name());
        }
        caller.call(Method::POST, &format!("{at}/test")).await;
        made.push((at, secret));
    }
    let hook = &made[0].0;
    harness
        .wait_for(hook, |seen| seen["disabled_reason"].is_string())
        .await;

    for key in [&harness.api_key, &harness.read_key] {
        let caller = Caller::with_key(&harness, key);
        for (path, text) in everything(&harness, &caller).await {
            assert!(!text.contains(MARK), "{path}: {text}");
            for secret in made.iter().filter_map(|(_, secret)| secret.as_ref()) {
                assert!(!text.contains(secret), "{path}: {text}");
            }
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_key_says_which_one_is_missing_and_goes_on() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    let new =
        json!({"kind": "webhook", "name": "Hook", "settings": {"url": receiver.url("/hooks/0123456789")}});
    let hook = caller.post("/api/v1/channels", &new).await;
    let at = format!("/api/v1/channels/{}", hook["id"].as_str().unwrap());
    assert_eq!(hook["unopened_reason"], Value::Null);
    let missing = harness::keyring().first().unwrap().id().to_owned();
    let reason = format!("cannot be opened: key {missing} is missing");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = App::start(Parts {
        keyring: Keyring::load(&"08".repeat(32), None).unwrap(),
        ..Parts::new(
            listener,
            harness.database_url.clone(),
            url.clone(),
            harness::senders(None),
        )
    })
    .unwrap();
    let other = |method: Method, path: &str| {
        harness
            .client
            .request(method, format!("{url}{path}"))
            .bearer_auth(&harness.api_key)
    };

    // The server without the key receives pings, answers reads, and is ready.
    let shown: Value = other(Method::GET, &at)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&shown["unopened_reason"], &shown["settings"]),
        (&json!(reason), &hook["settings"])
    );
    let ready = loop {
        let answer = other(Method::GET, "/readyz").send().await.unwrap();
        let ready: Value = answer.json().await.unwrap();
        if ready["missing_keys"] != json!([]) && ready["ready"] == true {
            break ready;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(ready["missing_keys"], json!([{"key_id": missing, "channels": 1}]));
    let refused = other(Method::POST, "/api/v1/channels")
        .json(&new)
        .send()
        .await
        .unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["code"], "key_missing");
    assert!(
        refused["detail"].as_str().unwrap().contains(&missing),
        "{refused}"
    );
    let kept = other(Method::PATCH, &at)
        .json(&json!({"settings": {}}))
        .send()
        .await
        .unwrap();
    let kept: Value = kept.json().await.unwrap();
    assert_eq!(kept["code"], "conflict", "{kept}");
    let ping = format!("{url}/ping/{}/job?create=1&period=3600", harness.ping_key);
    assert_eq!(
        harness.client.get(ping).send().await.unwrap().status(),
        StatusCode::CREATED
    );
    app.stop().await;
    // The server with the key delivers the alert.
    caller.call(Method::POST, &format!("{at}/test")).await;
    assert_eq!(receiver.wait_for(1, LIMIT).await[0].path, "/hooks/0123456789");
    harness.stop().await;
}
