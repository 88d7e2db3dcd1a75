//! New checks, changed ones, and those that a client recognizes.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ALWAYS, Client, FOR_WRITERS, order, path_of, ping};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_check_has_healthchecks_fields_in_their_order() {
    let harness = harness::start().await;
    let client = Client::new(&harness);

    let reply = client
        .post(
            "checks/",
            &json!({"name": "Bäckup", "slug": "backup", "tags": "prod db", "timeout": 3600, "grace": 600, "desc": "x\ny"}),
        )
        .await;
    assert_eq!(reply.status, 201);
    let expected: Vec<&str> = [ALWAYS, FOR_WRITERS, &["timeout"]].concat();
    assert_eq!(order(&reply.text), expected);
    let check = reply.json();
    let (uuid, root) = (check["uuid"].as_str().unwrap(), &harness.url);
    let begin = r#"{"name": "B\u00e4ckup", "slug": "backup", "tags": "prod db", "desc": "x\ny", "grace": 600, "n_pings": 0, "status": "new", "started": false, "last_ping": null, "#;
    assert!(reply.text.starts_with(begin), "{}", reply.text);
    let middle = r#""manual_resume": false, "methods": "", "subject": "", "subject_fail": "", "start_kw": "", "success_kw": "", "failure_kw": "", "filter_subject": false, "filter_body": false, "filter_http_body": false, "filter_default_fail": false, "badge_url": "#;
    assert!(reply.text.contains(middle), "{}", reply.text);
    let end = format!(
        r#""uuid": "{uuid}", "ping_url": "{root}/ping/{uuid}", "update_url": "{root}/api/v3/checks/{uuid}", "pause_url": "{root}/api/v3/checks/{uuid}/pause", "resume_url": "{root}/api/v3/checks/{uuid}/resume", "channels": "", "timeout": 3600}}"#
    );
    assert!(reply.text.ends_with(&end), "{}\n{end}", reply.text);

    ping(&harness, &check, "/start", b"").await;
    ping(&harness, &check, "", b"").await;
    let cron = client
        .check(&json!({"name": "Cron", "schedule": "0 4 * * *", "tz": "Europe/Riga"}))
        .await;
    let calendar = client
        .check(&json!({"name": "Calendar", "schedule": "Mon..Fri 08:00", "tz": "Europe/Riga"}))
        .await;
    for (check, schedule) in [(&cron, "0 4 * * *"), (&calendar, "Mon..Fri 08:00")] {
        assert_eq!(check["schedule"], schedule);
        assert_eq!(check["tz"], "Europe/Riga");
        assert_eq!(check.get("timeout"), None);
        assert_eq!(check["grace"], 3_600);
    }

    let listed = client.get("checks/").await;
    let names: Vec<Value> = listed.json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(
        json!(names),
        json!(["Bäckup", "Cron", "Calendar"]),
        "oldest first"
    );
    assert!(listed.text.starts_with(r#"{"checks": [{"name": "#));
    let read = client.get(&path_of(&check)).await.json();
    assert_eq!((&read["n_pings"], &read["status"]), (&json!(2), &json!("up")));
    assert!(read["last_ping"].as_str().unwrap().ends_with("+00:00"));
    assert_eq!(read["last_ping"].as_str().unwrap().len(), 25);
    assert!(read["next_ping"].is_string());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_changes_what_is_sent_and_nothing_else() {
    let harness = harness::start().await;
    let client = Client::new(&harness);
    let check = client
        .check(&json!({"name": "a", "slug": "a", "schedule": "0 4 * * *", "tz": "Europe/Riga", "grace": 60, "tags": "x y"}))
        .await;
    let path = path_of(&check);
    let changed = async |body: Value| {
        let reply = client.post(&path, &body).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        reply.json()
    };

    assert_eq!(changed(json!({})).await, check);
    assert_eq!(
        changed(json!({"unknown": 1})).await,
        check,
        "Healthchecks ignores it"
    );
    for (body, field, value) in [
        (json!({"schedule": "0 5 * * *"}), "tz", json!("Europe/Riga")),
        (json!({"tz": "Asia/Tokyo"}), "schedule", json!("0 5 * * *")),
        (json!({}), "tz", json!("Asia/Tokyo")),
        (json!({"tags": ""}), "tags", json!("")),
        (json!({"name": "A b"}), "slug", json!("a")),
        (json!({"desc": "text"}), "desc", json!("text")),
        (json!({"subject": "ok"}), "filter_subject", json!(true)),
        (json!({}), "success_kw", json!("ok")),
        (json!({}), "subject", json!("ok")),
        (json!({"subject": ""}), "filter_subject", json!(false)),
        (
            json!({"start_kw": "go", "filter_body": true}),
            "start_kw",
            json!("go"),
        ),
        (json!({"timeout": 120}), "timeout", json!(120)),
        (json!({"tz": "Asia/Tokyo"}), "timeout", json!(120)),
        (json!({"grace": 61}), "grace", json!(61)),
        // Of both, the schedule counts.
        (
            json!({"timeout": 60, "schedule": "*-*-* 8:00"}),
            "schedule",
            json!("*-*-* 8:00"),
        ),
        (
            json!({"manual_resume": false, "methods": ""}),
            "methods",
            json!(""),
        ),
    ] {
        assert_eq!(changed(body.clone()).await[field], value, "{body} {field}");
    }
    // Up to version 2 the slug follows the name.
    let second = client.of("v2").post(&path, &json!({"name": "New name"})).await;
    assert_eq!(second.json()["slug"], "new-name");
    let deleted = client.raw(Method::DELETE, &path, None).await;
    assert_eq!(
        (deleted.status, &deleted.json()["name"]),
        (200, &json!("New name"))
    );
    assert_eq!(client.raw(Method::DELETE, &path, None).await.status, 404);
    assert_eq!(client.get("checks/").await.text, r#"{"checks": []}"#);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM healthchecks_check")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(rows, 0, "its own settings went with it");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_fields_recognize_a_check_also_for_many_at_once() {
    let harness = harness::start().await;
    let client = Client::new(&harness);

    let one = json!({"name": "Backup", "tags": "a b", "timeout": 300, "grace": 60});
    let with = |unique: Value, more: Value| {
        let mut body = one.clone();
        body["unique"] = unique;
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let upserts = (0..8).map(|_| {
        let body = with(json!(["name"]), json!({}));
        let client = &client;
        async move { client.post("checks/", &body).await }
    });
    let replies = futures::future::join_all(upserts).await;
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 200, 200, 200, 200, 200, 200, 201],
        "one check, made once"
    );

    for (unique, more, status) in [
        (json!(["name", "tags", "timeout", "grace"]), json!({}), 200),
        (json!(["name"]), json!({"grace": 120}), 200),
        // It has this grace now.
        (json!(["name", "grace"]), json!({"grace": 120}), 200),
        (json!(["name", "timeout"]), json!({"timeout": 301}), 201),
        (json!(["tags"]), json!({"tags": "b a"}), 201),
        (json!(["slug"]), json!({"slug": "third"}), 201),
        (json!(["slug"]), json!({"slug": "third"}), 200),
        // A field that is not sent recognizes nothing.
        (json!(["slug"]), json!({}), 201),
        (json!([]), json!({}), 201),
    ] {
        let body = with(unique, more);
        let reply = client.post("checks/", &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
    }
    let listed = client.get("checks/?tag=a&tag=b").await.json();
    assert_eq!(listed["checks"].as_array().unwrap().len(), 6);
    let slugs: std::collections::BTreeSet<&str> = listed["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["slug"].as_str().unwrap())
        .collect();
    assert_eq!(slugs.len(), 6, "each has a slug of its own: {slugs:?}");
    for (query, count) in [
        ("?slug=third", 1),
        ("?slug=nobody", 0),
        ("?slug=", 6),
        ("?tag=c", 0),
        ("?tag=%00", 0),
        ("?slug=%00", 0),
        ("?unknown=1", 6),
    ] {
        let listed = client.get(&format!("checks/{query}")).await.json();
        assert_eq!(listed["checks"].as_array().unwrap().len(), count, "{query}");
    }
    harness.stop().await;
}
