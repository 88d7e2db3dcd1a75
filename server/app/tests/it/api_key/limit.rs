//! The limits of an API key hold at every door: the API, events, ping URLs, snoozes. A rotation replaces a key without a gap.

use chrono::TimeDelta;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::contract::Caller;
use crate::harness::{self, Harness};

async fn issue(caller: &Caller<'_>, body: Value) -> (String, String) {
    let issued = caller.post("/api/v1/api-keys", &body).await;
    let text = |field: &str| issued[field].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

async fn monitor(caller: &Caller<'_>, slug: &str, tags: &[&str]) -> String {
    let schedule = json!({"kind": "interval", "seconds": 60});
    let body = json!({"slug": slug, "schedule": schedule, "tags": tags});
    let made = caller.post("/api/v1/monitors", &body).await;
    made["id"].as_str().unwrap().to_owned()
}

/// Requests a ping URL from an address behind this machine's proxy. Returns the status, and the code before the colon.
async fn ping(harness: &Harness, path: &str, from: &str) -> (u16, String) {
    let request = harness
        .client
        .get(format!("{}/ping/{path}", harness.url))
        .header("X-Forwarded-For", from);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (
        status,
        text.split_once(": ")
            .map_or(String::new(), |(code, _)| code.to_owned()),
    )
}

/// Requests the API with a key, from an address. Returns the status and the code of the problem.
async fn api(harness: &Harness, method: Method, path: &str, key: &str, from: &str) -> (u16, String) {
    let batch = json!({"sent_at": "2026-03-02T01:00:00Z", "events": []});
    let mut request = harness
        .client
        .request(method.clone(), format!("{}{path}", harness.url))
        .bearer_auth(key)
        .header("X-Forwarded-For", from);
    if method == Method::POST {
        request = request.json(&batch);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let json: Value = answer.json().await.unwrap_or_default();
    (status, json["code"].as_str().unwrap_or_default().to_owned())
}

/// The answers of each door to a ping key and a read key.
async fn doors(harness: &Harness, ping_key: &str, read_key: &str, from: &str) -> Vec<(u16, String)> {
    vec![
        ping(harness, &format!("{ping_key}/job"), from).await,
        ping(harness, &format!("{ping_key}/job/fail"), from).await,
        ping(harness, &format!("{ping_key}/snooze/1m"), from).await,
        ping(harness, &format!("{ping_key}/job/snooze/1m"), from).await,
        api(harness, Method::POST, "/api/v1/events", ping_key, from).await,
        api(harness, Method::GET, "/api/v1/monitors", read_key, from).await,
        api(harness, Method::GET, "/api/v1/metrics", read_key, from).await,
    ]
}

const HOME: &str = "203.0.113.7";

fn all(status: u16) -> Vec<(u16, String)> {
    vec![(status, String::new()); 7]
}

/// The answers of each door to a key with this fault. Ping URLs always answer 403.
fn refused(status: u16, code: &str) -> Vec<(u16, String)> {
    let mut answers = vec![(403, code.to_owned()); 4];
    answers.extend(vec![(status, code.to_owned()); 3]);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_beyond_its_end_is_refused_at_every_door() {
    let (harness, clock) = harness::start_at("2026-03-02T01:00:00Z").await;
    let caller = Caller::new(&harness);
    let id = monitor(&caller, "job", &[]).await;
    let end = json!("2026-03-02T02:00:00Z");
    let (_, ping_key) = issue(&caller, json!({"name": "p", "scope": "ping", "expires_at": end})).await;
    let (_, read_key) = issue(&caller, json!({"name": "r", "scope": "read", "expires_at": end})).await;
    assert_eq!(doors(&harness, &ping_key, &read_key, HOME).await, all(200));
    let before = caller.get(&format!("/api/v1/monitors/{id}")).await["ping_count"].clone();

    clock.advance(TimeDelta::minutes(60));

    let answers = doors(&harness, &ping_key, &read_key, HOME).await;
    assert_eq!(answers, refused(401, "key_expired"));
    let created = ping(&harness, &format!("{ping_key}/new?create=1"), HOME).await;
    assert_eq!(created, (403, "key_expired".to_owned()));
    let seen = caller.get(&format!("/api/v1/monitors/{id}")).await;
    assert_eq!(seen["ping_count"], before, "a refused ping is not recorded");
    let listed = caller.get("/api/v1/monitors").await;
    assert_eq!(listed["monitors"].as_array().unwrap().len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_refused_from_other_networks_at_every_door() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    monitor(&caller, "job", &[]).await;
    let networks = json!(["203.0.113.0/24", "2001:db8::/32"]);
    let (ping_id, ping_key) = issue(
        &caller,
        json!({"name": "p", "scope": "ping", "networks": networks}),
    )
    .await;
    let (_, read_key) = issue(
        &caller,
        json!({"name": "r", "scope": "read", "networks": networks}),
    )
    .await;

    for from in [
        "198.51.100.1",
        "203.0.114.1",
        "203.0.113.7, 198.51.100.1",
        "2001:db9::1",
    ] {
        let answers = doors(&harness, &ping_key, &read_key, from).await;
        assert_eq!(answers, refused(403, "key_network"), "{from}");
        let created = ping(&harness, &format!("{ping_key}/new?create=1"), from).await;
        assert_eq!(created, (403, "key_network".to_owned()), "{from}");
    }
    for from in [
        HOME,
        "198.51.100.1, 203.0.113.9",
        "2001:db8::1",
        "::ffff:203.0.113.5",
    ] {
        assert_eq!(
            doors(&harness, &ping_key, &read_key, from).await,
            all(200),
            "{from}"
        );
    }

    let keys = caller.pages("/api/v1/api-keys", 50).await;
    let own = keys.iter().find(|key| key["id"] == ping_id.as_str()).unwrap();
    assert_eq!(own["last_used_addr"], HOME, "a refused use is not noted");
    assert_eq!(own["networks"], networks);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_key_reports_only_about_its_slugs_and_tags() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    for (slug, tags) in [("job", &["shop"][..]), ("backup", &[]), ("other", &["pay"])] {
        monitor(&caller, slug, tags).await;
    }
    let body = json!({"name": "p", "scope": "ping", "slugs": ["backup", "new"], "tags": ["shop"]});
    let (_, key) = issue(&caller, body).await;

    for (path, status) in [
        ("backup", 200),
        ("job", 200),
        ("job/3", 200),
        ("other", 403),
        ("other/start", 403),
        ("missing", 404),
        ("new", 404),
        ("new?create=1&period=60", 201),
        ("new2?create=1&period=60", 403),
        ("new3?create=1&period=60&tags=pay", 403),
        ("new4?create=1&period=60&tags=pay+shop", 201),
        ("snooze/1m", 403),
        ("snooze/1m?tag=shop", 200),
        ("snooze/1m?tag=pay", 403),
        ("backup/snooze/1m", 200),
        ("job/snooze/1m", 200),
        ("other/snooze/1m", 403),
        ("missing/snooze/1m", 404),
    ] {
        let (seen, code) = ping(&harness, &format!("{key}/{path}"), HOME).await;
        assert_eq!(seen, status, "{path}");
        assert_eq!(code == "key_part", status == 403, "{path}: {code}");
    }
    let events = api(&harness, Method::POST, "/api/v1/events", &key, HOME).await;
    assert_eq!(events, (403, "key_part".to_owned()));
    let monitors = caller.get("/api/v1/monitors?limit=500").await;
    let mut slugs: Vec<&str> = monitors["monitors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["slug"].as_str().unwrap())
        .collect();
    slugs.sort_unstable();
    assert_eq!(slugs, ["backup", "job", "new", "new4", "other"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_leaves_no_gap_and_ends_the_old_key() {
    let (harness, clock) = harness::start_at("2026-03-02T01:00:00Z").await;
    let caller = Caller::new(&harness);
    monitor(&caller, "job", &[]).await;
    let body = json!({"name": "p", "scope": "ping", "slugs": ["job"], "networks": ["203.0.113.0/24"]});
    let (id, old) = issue(&caller, body).await;

    let made = caller
        .post(
            &format!("/api/v1/api-keys/{id}/rotate"),
            &json!({"overlap_seconds": 600}),
        )
        .await;

    let new = made["key"].as_str().unwrap();
    assert_eq!(
        (
            &made["name"],
            &made["slugs"],
            &made["networks"],
            &made["expires_at"]
        ),
        (
            &json!("p"),
            &json!(["job"]),
            &json!(["203.0.113.0/24"]),
            &Value::Null
        )
    );
    let listed = caller.pages("/api/v1/api-keys", 50).await;
    let replaced = listed.iter().find(|key| key["id"] == id.as_str()).unwrap();
    assert_eq!(replaced["replaced_by"], made["id"]);
    assert_eq!(replaced["expires_at"], "2026-03-02T01:10:00Z");
    let both = async || {
        (
            ping(&harness, &format!("{old}/job"), HOME).await.0,
            ping(&harness, &format!("{new}/job"), HOME).await.0,
        )
    };
    clock.advance(TimeDelta::seconds(599));
    assert_eq!(both().await, (200, 200));
    clock.advance(TimeDelta::seconds(1));
    assert_eq!(both().await, (403, 200));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_once_and_only_while_it_is_valid() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let (other_key, _) = harness.other_project().await;
    let rotate = |id: String| {
        let path = format!("/api/v1/api-keys/{id}/rotate");
        async {
            Caller::new(&harness)
                .json(Method::POST, &{ path }, &json!({}))
                .await
        }
    };

    // Five at once: one of them replaces the key.
    let (id, _) = issue(&caller, json!({"name": "k", "scope": "read"})).await;
    let answers = futures::future::join_all((0..5).map(|_| rotate(id.clone()))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|one| one.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409]);

    let at = format!("/api/v1/api-keys/{id}/rotate");
    let stranger = Caller::with_key(&harness, &other_key);
    let theirs = stranger.json(Method::POST, &at, &json!({})).await;
    assert_eq!(theirs.status, StatusCode::NOT_FOUND);
    let read = Caller::with_key(&harness, &harness.read_key);
    let refused = read.json(Method::POST, &at, &json!({})).await;
    assert_eq!(refused.code(), "key_scope");

    let (id, _) = issue(&caller, json!({"name": "revoked", "scope": "read"})).await;
    for bad in [json!(-1), json!(2_592_001), json!(1.5), json!("60"), Value::Null] {
        let path = format!("/api/v1/api-keys/{id}/rotate");
        let answer = caller
            .json(Method::POST, &path, &json!({"overlap_seconds": bad}))
            .await;
        assert_eq!(answer.code(), "invalid_fields", "{bad}");
        assert_eq!(answer.json["errors"][0]["pointer"], "/overlap_seconds", "{bad}");
    }
    caller
        .call(Method::DELETE, &format!("/api/v1/api-keys/{id}"))
        .await;
    assert_eq!(rotate(id).await.status, StatusCode::CONFLICT);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_limits_issue_no_key() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let before = caller.pages("/api/v1/api-keys", 50).await.len();

    for (limits, pointer) in [
        (
            json!({"scope": "read", "expires_at": "2020-01-01T00:00:00Z"}),
            "/expires_at",
        ),
        (json!({"scope": "read", "expires_at": "tomorrow"}), "/expires_at"),
        (json!({"scope": "read", "expires_at": null}), "/expires_at"),
        (json!({"scope": "read", "networks": []}), "/networks"),
        (
            json!({"scope": "read", "networks": ["everywhere"]}),
            "/networks/0",
        ),
        (
            json!({"scope": "read", "networks": ["10.0.0.0/8\u{0}"]}),
            "/networks/0",
        ),
        (
            json!({"scope": "read", "networks": vec!["10.0.0.1"; 51]}),
            "/networks",
        ),
        (json!({"scope": "ping", "slugs": ["<b>"]}), "/slugs/0"),
        (json!({"scope": "ping", "slugs": vec!["a"; 101]}), "/slugs"),
        (json!({"scope": "ping", "tags": ["a b"]}), "/tags/0"),
        (json!({"scope": "write", "tags": ["a"]}), "/tags"),
    ] {
        let mut body = limits.clone();
        body["name"] = json!("k");
        let answer = caller.json(Method::POST, "/api/v1/api-keys", &body).await;
        assert_eq!(answer.code(), "invalid_fields", "{limits}");
        assert_eq!(answer.json["errors"][0]["pointer"], pointer, "{limits}");
    }
    assert_eq!(caller.pages("/api/v1/api-keys", 50).await.len(), before);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_key_and_a_metrics_key_read_one_thing_each() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    monitor(&caller, "job", &[]).await;
    let (_, audit) = issue(&caller, json!({"name": "a", "scope": "audit"})).await;
    let (_, metrics) = issue(&caller, json!({"name": "m", "scope": "metrics"})).await;
    assert!(audit.starts_with("dba_") && metrics.starts_with("dbm_"));

    for (key, path, status) in [
        (&audit, "/api/v1/audit-entries", 200),
        (&audit, "/api/v1/metrics", 403),
        (&audit, "/api/v1/monitors", 403),
        (&metrics, "/api/v1/metrics", 200),
        (&metrics, "/api/v1/audit-entries", 403),
        (&metrics, "/api/v1/project", 403),
    ] {
        let answer = api(&harness, Method::GET, path, key, HOME).await;
        assert_eq!(answer.0, status, "{path}");
    }
    let url = format!("{}/api/v1/metrics", harness.url);
    let answer = harness
        .client
        .get(url)
        .bearer_auth(&metrics)
        .send()
        .await
        .unwrap();
    let text = answer.text().await.unwrap();
    assert!(
        text.contains("deadbeat_project_monitors{status=\"new\"} 1"),
        "{text}"
    );
    harness.stop().await;
}
