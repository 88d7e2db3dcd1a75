//! Webhooks reach their receivers as the contract describes them.

use std::collections::BTreeSet;

use deadbeat_testkit::receiver::{Receiver, Reply, Request};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Caller;
use super::document::contract;
use crate::harness::{self, LIMIT};

/// Checks a webhook, and returns its type.
fn check(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let kind = body["type"].as_str().unwrap().to_owned();
    let hooks = contract().webhooks();
    let schema = hooks
        .get(&kind)
        .unwrap_or_else(|| panic!("the contract has no webhook {kind}"));
    let faults = contract().faults(schema, &body);
    assert!(
        faults.is_empty(),
        "{kind} differs from the contract: {faults:#?}\n{body:#}"
    );

    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        (request.method.as_str(), headers["content-type"].to_str().unwrap()),
        ("POST", "application/json")
    );
    for index in 0..3 {
        let at = format!("/webhooks/{kind}/post/parameters/{index}");
        let name = contract().part(&format!("{at}/name")).as_str().unwrap();
        let value = headers
            .get(name)
            .unwrap_or_else(|| panic!("{kind} has no header {name}"));
        assert_eq!(
            contract().faults(&format!("{at}/schema"), &json!(value.to_str().unwrap())),
            [""; 0],
            "{kind}: {name}"
        );
    }
    kind
}

#[tokio::test(flavor = "multi_thread")]
async fn every_webhook_is_sent_as_the_contract_says() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let receiver = Receiver::start().await;
    let gone = Receiver::answering(Reply::status(410)).await;
    let channel =
        |name: &str, url: String| json!({"kind": "webhook", "name": name, "settings": {"url": url}});
    let good = caller
        .post("/api/v1/channels", &channel("good", receiver.url("/hook")))
        .await;
    let schedule = json!({"kind": "cron", "expression": "0 2 * * *"});
    let monitor = caller
        .post(
            "/api/v1/monitors",
            &json!({"name": "Job", "tags": ["prod"], "schedule": schedule}),
        )
        .await;
    let ping = monitor["ping_url"].as_str().unwrap();

    caller
        .post(
            &format!("/api/v1/channels/{}/test", good["id"].as_str().unwrap()),
            &json!({}),
        )
        .await;
    receiver.wait_for(1, LIMIT).await;
    let steps = json!([{"delay_seconds": 0, "targets": [{"kind": "channel", "id": good["id"]}]}]);
    caller
        .post(
            "/api/v1/escalation-policies",
            &json!({"name": "Default", "steps": steps}),
        )
        .await;
    harness.client.get(format!("{ping}/fail")).send().await.unwrap();
    receiver.wait_for(3, LIMIT).await;
    // The reminder would be due in a day, so the test changes its time.
    sqlx::query("UPDATE incident SET remind_at = opened_at")
        .execute(&harness.pool)
        .await
        .unwrap();
    receiver.wait_for(4, LIMIT).await;
    harness.client.get(ping).send().await.unwrap();
    receiver.wait_for(5, LIMIT).await;
    let bad = caller
        .post("/api/v1/channels", &channel("gone", gone.url("/hook")))
        .await;
    caller
        .post(
            &format!("/api/v1/channels/{}/test", bad["id"].as_str().unwrap()),
            &json!({}),
        )
        .await;
    receiver.wait_for(6, LIMIT).await;
    // A blind spell would take too long, so the test inserts its notice.
    sqlx::query(
        "INSERT INTO blind_notice (project_id, spell_started_at, spell_ended_at, monitors, tell_at)
        SELECT id, now() - interval '1 day', now(), 3, now() FROM project",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    let requests = receiver.wait_for(7, LIMIT).await;

    let kinds: Vec<String> = requests.iter().map(check).collect();
    assert_eq!(
        kinds,
        [
            "channel.test",
            "incident.opened",
            "incident.escalated",
            "incident.reminder",
            "incident.resolved",
            "channel.disabled",
            "blind_spell.notice"
        ]
    );
    let listed: BTreeSet<String> = contract().webhooks().into_keys().collect();
    assert_eq!(kinds.into_iter().collect::<BTreeSet<_>>(), listed);
    // The API shows the fate of each delivery, and the reason why a channel is switched off.
    let deliveries = caller.pages("/api/v1/deliveries", 2).await;
    assert_eq!(deliveries.len(), 8);
    let dead = harness
        .wait_for("/api/v1/deliveries?status=dead", |seen| {
            seen["deliveries"].as_array().unwrap().len() == 1
        })
        .await;
    let dead = caller
        .get(&format!(
            "/api/v1/deliveries/{}",
            dead["deliveries"][0]["id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(
        (
            dead["attempts"][0]["outcome"].as_str(),
            dead["attempts"][0]["response_code"].as_i64()
        ),
        (Some("failed"), Some(410))
    );
    let disabled = caller
        .get(&format!("/api/v1/channels/{}", bad["id"].as_str().unwrap()))
        .await;
    assert!(disabled["disabled_at"].is_string() && disabled["disabled_reason"].is_string());
    harness.stop().await;
}
