//! Removing a mail address from a channel: mail, header, and the POST of a mail program.

use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_testkit::Inbox;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{self, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_program_unsubscribes_with_one_post_and_whoever_opens_the_link_only_reads() {
    let inbox = Inbox::start().await;
    let smtp = SmtpSettings {
        url: inbox.url(),
        from: "Deadbeat <deadbeat@example.org>".to_owned(),
    };
    let harness = harness::start_with(Some(smtp)).await;
    let new = json!({"kind": "email", "name": "<b>Ops</b>", "settings": {"to": "ops@example.org"}});
    let (status, channel) = harness.send(Method::POST, "/api/v1/channels", &new).await;
    assert_eq!(status, StatusCode::CREATED);
    let path = format!("/api/v1/channels/{}", channel["id"].as_str().unwrap());
    harness
        .send(Method::POST, &format!("{path}/test"), &json!({}))
        .await;
    let mails = inbox.wait_for(1, LIMIT).await;
    let header = mails[0].header("List-Unsubscribe").unwrap();
    let link = header.trim_start_matches('<').trim_end_matches('>').to_owned();
    assert!(
        link.starts_with(&format!("{}/unsubscribe/", harness.url)),
        "{link}"
    );
    // RFC 8058 allows unsubscribing with one click only by https, and this server has no certificate.
    assert_eq!(mails[0].header("List-Unsubscribe-Post"), None);

    for _ in 0..2 {
        let head = harness.client.head(&link).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        let page = harness.client.get(&link).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let page = page.text().await.unwrap();
        assert!(
            page.contains("ops@example.org") && page.contains("<form method=\"post\""),
            "{page}"
        );
    }
    assert_eq!(harness.get(&path).await["disabled_at"], Value::Null);
    // A wrong link, the link of another channel, and no link get the same answer.
    let mut answers = Vec::new();
    for wrong in [
        link.replace("token=", "token=0"),
        link.replace("to=", "to=0"),
        link.replace("project=", "project=x"),
        link.replace(channel["id"].as_str().unwrap(), &uuid::Uuid::new_v4().to_string()),
        link.split('?').next().unwrap().to_owned(),
        format!("{}/unsubscribe/nonsense?token=%ff&token=x", harness.url),
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = harness.client.request(method, &wrong).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{wrong}");
            answers.push(answer.text().await.unwrap());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");

    // The POST of a mail service: RFC 8058, 3.2, in the form of RFC 7578.
    let body =
        "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n";
    let post = harness.client.post(&link);
    let done = post
        .header("Content-Type", "multipart/form-data; boundary=x")
        .body(body)
        .send()
        .await
        .unwrap();

    assert_eq!(done.status(), StatusCode::OK, "no redirect");
    let page = done.text().await.unwrap();
    assert!(page.contains("No more alerts to ops@example.org"), "{page}");
    let off = harness.get(&path).await;
    assert!(off["disabled_at"].is_string());
    let reason = off["disabled_reason"].as_str().unwrap();
    assert!(reason.contains("unsubscribed"), "{reason}");
    assert_eq!(off["confirmed_at"], Value::Null);
    harness.stop().await;
}
