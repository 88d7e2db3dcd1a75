//! Acknowledging an incident from an alert: message, link, page, button, and the message to all channels.

use deadbeat_testkit::Receiver;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{self, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_got_an_alert_acknowledges_it_by_its_link() {
    let harness = harness::start().await;
    let receiver = Receiver::start().await;
    let hook = json!({"kind": "webhook", "name": "<b>Ops</b>", "settings": {"url": receiver.url("/hook")}});
    let (status, _) = harness.send(Method::POST, "/api/v1/channels", &hook).await;
    assert_eq!(status, StatusCode::CREATED);
    let monitor = harness
        .monitor(json!({"name": "<i>Job</i>", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let fail = format!("{}/fail", monitor["ping_url"].as_str().unwrap());
    harness.client.get(&fail).send().await.unwrap();
    let body = |index: usize| {
        let receiver = &receiver;
        async move {
            let requests = receiver.wait_for(index + 1, LIMIT).await;
            serde_json::from_slice::<Value>(&requests[index].body).unwrap()
        }
    };
    let opened = body(0).await;
    let link = opened["incident"]["acknowledge_url"].as_str().unwrap().to_owned();
    assert!(
        link.starts_with(&format!("{}/acknowledge/", harness.url)),
        "{link}"
    );
    let path = format!("/api/v1/incidents/{}", opened["incident"]["id"].as_str().unwrap());

    // Opening the link changes nothing, however often. A changed link finds nothing.
    for _ in 0..2 {
        let head = harness.client.head(&link).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        let page = harness.client.get(&link).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let page = page.text().await.unwrap();
        assert!(
            page.contains("&#60;i&#62;Job") || page.contains("&lt;i&gt;Job"),
            "names are escaped: {page}"
        );
        assert!(page.contains("<form method=\"post\""), "{page}");
    }
    assert_eq!(harness.get(&path).await["acknowledged_at"], Value::Null);
    for wrong in [
        link.replace("token=", "token=0"),
        link.replace("expires=", "expires=1"),
        link.replace("key=", "key=x"),
        link.split('?').next().unwrap().to_owned(),
        format!("{}/acknowledge/nonsense", harness.url),
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = harness.client.request(method, &wrong).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{wrong}");
        }
    }

    let done = harness.client.post(&link).send().await.unwrap();

    assert_eq!(done.status(), StatusCode::OK);
    let page = done.text().await.unwrap();
    assert!(
        page.contains("Acknowledged") && !page.contains("<form method=\"post\" action=\"/ack"),
        "{page}"
    );
    let seen = harness.get(&path).await;
    assert_eq!(seen["acknowledged_by"], "the link in channel <b>Ops</b>");
    let alerted = body(1).await;
    assert_eq!(alerted["type"], "incident.acknowledged");
    assert_eq!(alerted["incident"]["acknowledged_by"], seen["acknowledged_by"]);
    // A second acknowledgement sends no further message.
    let again = harness.client.post(&link).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(
        harness.get(&path).await["acknowledged_at"],
        seen["acknowledged_at"]
    );
    harness.stop().await;
}
