//! Confirming a mail address: mail, link, page, button, and then alerts.

use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_testkit::Inbox;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{self, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_address_gets_alerts_once_its_owner_pressed_the_button() {
    let inbox = Inbox::start().await;
    let smtp = SmtpSettings {
        url: inbox.url(),
        from: "Deadbeat <deadbeat@example.org>".to_owned(),
    };
    let harness = harness::start_confirming(Some(smtp)).await;
    let new = json!({"kind": "email", "name": "EVIL NAME", "settings": {"to": "ops@example.org"}});
    let (status, channel) = harness.send(Method::POST, "/api/v1/channels", &new).await;
    assert_eq!(
        (status, &channel["confirmed_at"]),
        (StatusCode::CREATED, &Value::Null)
    );
    let path = format!("/api/v1/channels/{}", channel["id"].as_str().unwrap());

    let text = inbox.wait_for(1, LIMIT).await[0].part("text/plain").unwrap();
    assert!(!text.contains("EVIL NAME"), "{text}");
    let link = text
        .split_whitespace()
        .find(|word| word.starts_with(&format!("{}/confirm/", harness.url)))
        .unwrap()
        .to_owned();
    let test = format!("{path}/test");
    assert_eq!(
        harness.send(Method::POST, &test, &json!({})).await.0,
        StatusCode::CONFLICT
    );

    // Opening the link changes nothing. A changed link finds nothing.
    let page = harness.client.get(&link).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let page = page.text().await.unwrap();
    assert!(
        page.contains("ops@example.org") && page.contains("<form method=\"post\""),
        "{page}"
    );
    assert_eq!(harness.get(&path).await["confirmed_at"], Value::Null);
    for wrong in [
        link.replace("token=", "token=0"),
        link.replace("expires=", "expires=1"),
        link.split('?').next().unwrap().to_owned(),
        format!("{}/confirm/nonsense", harness.url),
    ] {
        let answer = harness.client.post(&wrong).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{wrong}");
    }

    let done = harness.client.post(&link).send().await.unwrap();

    assert_eq!(done.status(), StatusCode::OK);
    assert!(harness.get(&path).await["confirmed_at"].is_string());
    assert_eq!(
        harness.send(Method::POST, &test, &json!({})).await.0,
        StatusCode::ACCEPTED
    );
    inbox.wait_for(2, LIMIT).await;
    harness.stop().await;
}
