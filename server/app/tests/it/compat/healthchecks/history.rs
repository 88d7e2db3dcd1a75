//! What happened to a check: pauses, pings, badges.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Client, members, order, path_of, ping};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_paused_and_resumed() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let check = client.check(&json!({"name": "a"})).await;
    let path = path_of(&check);
    ping(&harness, &check, "", b"").await;

    let refused = client.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!(
        (refused.status, refused.text.as_str()),
        (409, "check is not paused")
    );
    for _ in 0..2 {
        let paused = client.raw(Method::POST, &format!("{path}/pause"), None).await;
        assert_eq!((paused.status, &paused.json()["status"]), (200, &json!("paused")));
        assert_eq!(paused.json()["next_ping"], Value::Null);
    }
    let resumed = client.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!((resumed.status, &resumed.json()["status"]), (200, &json!("new")));

    let flips = client.get(&format!("{path}/flips/")).await;
    let ups: Vec<Value> = flips.json()["flips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flip| flip["up"].clone())
        .collect();
    assert_eq!(json!(ups), json!([0, 0, 1]), "newest first: {}", flips.text);
    assert!(flips.text.starts_with(r#"{"flips": [{"timestamp": "20"#));
    assert!(flips.text.contains(r#"+00:00", "up": 0}, {"timestamp": "#));
    for (query, status, count) in [
        ("?seconds=60", 200, 3),
        ("?seconds=0", 200, 3),
        ("?seconds=", 200, 3),
        ("?start=0&end=10000000000", 200, 3),
        ("?end=1000", 200, 0),
        ("?start=4000000000", 200, 0),
        ("?seconds=31536001", 400, 0),
        ("?seconds=-1", 400, 0),
        ("?seconds=x", 400, 0),
        ("?start=x", 400, 0),
        ("?end=99999999999", 400, 0),
    ] {
        let flips = client.get(&format!("{path}/flips/{query}")).await;
        assert_eq!(flips.status, status, "{query}");
        if status == 200 {
            assert_eq!(flips.json()["flips"].as_array().unwrap().len(), count, "{query}");
        } else {
            assert_eq!(flips.text, "");
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_their_bodies_are_shown() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let check = client.check(&json!({"name": "a"})).await;
    let path = path_of(&check);
    let rid = Uuid::new_v4();
    ping(&harness, &check, &format!("/start?rid={rid}"), b"").await;
    ping(&harness, &check, &format!("?rid={rid}"), b"it \xff worked").await;
    ping(&harness, &check, "/7", b"").await;
    ping(&harness, &check, "/log", b"note").await;

    let started = client.of("v1").get(&path).await.json();
    assert_eq!(started["status"], "down", "exit code 7");
    let listed = client.get(&format!("{path}/pings/")).await;
    let pings = listed.json()["pings"].as_array().unwrap().clone();

    let kinds: Vec<&Value> = pings.iter().map(|ping| &ping["type"]).collect();
    assert_eq!(json!(kinds), json!(["log", "fail", "success", "start"]));
    let numbers: Vec<&Value> = pings.iter().map(|ping| &ping["n"]).collect();
    assert_eq!(json!(numbers), json!([4, 3, 2, 1]));
    let fields = [
        "type",
        "date",
        "n",
        "scheme",
        "remote_addr",
        "method",
        "ua",
        "rid",
        "body_url",
    ];
    assert_eq!(order(&listed.text)[1..10], fields);
    assert_eq!(pings[2]["rid"], json!(rid));
    assert_eq!(pings[3]["rid"], json!(rid));
    assert_eq!(pings[1]["rid"], Value::Null);
    assert!(pings[2]["duration"].is_number() && pings[1].get("duration").is_none());
    assert_eq!(pings[2]["method"], "POST");
    assert_eq!(pings[2]["remote_addr"], "127.0.0.1");
    assert_eq!(pings[3]["body_url"], Value::Null);
    let url = pings[2]["body_url"].as_str().unwrap();
    assert!(url.ends_with(&format!("/api/v3/{path}/pings/2/body")), "{url}");

    let body = client.get(&format!("{path}/pings/2/body")).await;
    assert_eq!((body.status, body.text.as_str()), (200, "it \u{fffd} worked"));
    assert_eq!(body.headers["content-type"], "text/plain");
    assert_eq!(body.headers["x-content-type-options"], "nosniff");
    for n in ["1", "9", "0", "-1", "x", "99999999999999999999"] {
        let missing = client.get(&format!("{path}/pings/{n}/body")).await;
        assert_eq!(missing.status, 404, "{n}");
    }
    // Up to version 1 a run that goes on is a status.
    ping(&harness, &check, "", b"").await;
    ping(&harness, &check, "/start", b"").await;
    for (version, status) in [("v1", "started"), ("v2", "up"), ("v3", "up")] {
        let check = client.of(version).get(&path).await.json();
        assert_eq!(
            (&check["status"], &check["started"]),
            (&json!(status), &json!(true))
        );
        let url = check["update_url"].as_str().unwrap().to_owned();
        assert!(url.contains(&format!("/api/{version}/checks/")), "{url}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn badges_show_to_everybody_with_their_address_what_is_up() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let down = client.check(&json!({"name": "<b>&\"", "tags": "db a/b"})).await;
    let up = client.check(&json!({"name": "fine", "tags": "a/b"})).await;
    ping(&harness, &down, "/fail", b"").await;
    ping(&harness, &up, "", b"").await;
    let anybody = client.with_key(None);
    let at = |url: &Value| {
        let url = url.as_str().unwrap();
        url[url.find("/badge/").unwrap()..].to_owned()
    };

    let listed = client
        .with_key(Some(&harness.read_key))
        .get("badges/")
        .await
        .json();

    let badges = &listed["badges"];
    assert_eq!(members(badges), ["*", "a/b", "db"]);
    let kinds = ["json", "json3", "shields", "shields3", "svg", "svg3"];
    let mut found = members(&badges["db"]);
    found.sort_unstable();
    assert_eq!(found, kinds);
    for (tag, text) in [
        ("*", r#"{"status": "down", "total": 2, "grace": 0, "down": 1}"#),
        ("db", r#"{"status": "down", "total": 1, "grace": 0, "down": 1}"#),
        ("a/b", r#"{"status": "down", "total": 2, "grace": 0, "down": 1}"#),
    ] {
        let reply = anybody.get(&at(&badges[tag]["json3"])).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, text), "{tag}");
        assert_eq!(reply.headers["access-control-allow-origin"], "*");
        assert!(
            reply.headers["cache-control"]
                .to_str()
                .unwrap()
                .contains("no-store")
        );
    }
    let shields = anybody.get(&at(&badges["db"]["shields"])).await.text;
    assert_eq!(
        shields,
        r#"{"schemaVersion": 1, "label": "db", "message": "down", "color": "critical"}"#
    );
    let svg = anybody.get(&at(&down["badge_url"])).await;
    assert_eq!(svg.headers["content-type"], "image/svg+xml");
    assert!(
        svg.text.contains("&lt;b&gt;&amp;&quot;") && svg.text.contains(">down<"),
        "{}",
        svg.text
    );
    let fine = anybody.get(&at(&up["badge_url"]).replace(".svg", ".json")).await;
    assert_eq!(
        fine.text,
        r#"{"status": "up", "total": 1, "grace": 0, "down": 0}"#
    );

    // A signature belongs to one badge.
    let (one, other) = (at(&badges["*"]["svg"]), at(&badges["db"]["svg"]));
    let signature = |path: &str| {
        path.split('/')
            .nth(3)
            .unwrap()
            .trim_end_matches(".svg")
            .to_owned()
    };
    for forged in [
        other.replace("/db.", "/a%2Fb."),
        other.replace("/db.", "/nobody."),
        one.replace(&signature(&one), &signature(&other)),
        one.replace(&signature(&one), &"0".repeat(32)),
        one.replace(&signature(&one), "x"),
        one.replace(".svg", ".png"),
        other.replace("/db.", "/%00."),
        "/badge/x/y.svg".to_owned(),
    ] {
        assert_eq!(anybody.get(&forged).await.status, 404, "{forged}");
    }
    harness.stop().await;
}
