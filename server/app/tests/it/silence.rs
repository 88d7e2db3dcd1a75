//! Silence becomes one incident and one alert, whichever process sweeps. The next report resolves it.

use std::net::TcpListener;

use deadbeat_app::{App, Parts};
use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_testkit::inbox::Inbox;
use deadbeat_testkit::receiver::Receiver;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{self, Harness, LIMIT};

async fn report_events(harness: &Harness, receiver: &Receiver) {
    let channel = json!({"kind": "webhook", "name": "sink", "settings": {"url": receiver.url("/hook")}});
    let (status, answer) = harness.send(Method::POST, "/api/v1/channels", &channel).await;
    assert_eq!(status, 201, "{answer}");
}

fn kinds(requests: &[deadbeat_testkit::receiver::Request]) -> Vec<String> {
    let kind = |text: String| {
        serde_json::from_str::<Value>(&text).unwrap()["type"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    requests.iter().map(|request| kind(request.text())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_that_does_not_come_is_reported_once_and_its_return_resolves() {
    let harness = harness::start().await;
    let receiver = Receiver::start().await;
    report_events(&harness, &receiver).await;
    let monitor = harness
        .monitor(
            json!({"name": "nightly", "schedule": {"kind": "interval", "seconds": 1}, "grace_seconds": 1}),
        )
        .await;
    let ping = monitor["ping_url"].as_str().unwrap().to_owned();
    harness.client.get(&ping).send().await.unwrap();

    let opened = receiver.wait_for(1, LIMIT).await;
    let alert: Value = serde_json::from_str(&opened[0].text()).unwrap();
    assert_eq!(alert["type"], "incident.opened");
    assert_eq!(alert["incident"]["cause"]["code"], "MISSED");
    assert_eq!(
        alert["incident"]["subject"],
        json!({"kind": "monitor", "id": monitor["id"], "name": "nightly"})
    );
    assert_eq!(alert["monitor"]["slug"], "nightly");
    assert_eq!(alert["monitor"]["status"], "down");

    harness.client.get(&ping).send().await.unwrap();
    let alerted = receiver.wait_for(2, LIMIT).await;
    assert_eq!(kinds(&alerted[..2]), ["incident.opened", "incident.resolved"]);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_at_once_by_webhook_and_mail() {
    let inbox = Inbox::start().await;
    let smtp = SmtpSettings {
        url: inbox.url(),
        from: "Deadbeat <deadbeat@example.org>".to_owned(),
    };
    let harness = harness::start_with(Some(smtp)).await;
    let receiver = Receiver::start().await;
    report_events(&harness, &receiver).await;
    let mail = json!({"kind": "email", "name": "ops", "settings": {"to": "ops@example.org"}});
    harness.send(Method::POST, "/api/v1/channels", &mail).await;
    let monitor = harness
        .monitor(json!({"name": "import", "schedule": {"kind": "interval", "seconds": 3600}}))
        .await;
    let ping = monitor["ping_url"].as_str().unwrap();
    harness
        .client
        .post(format!("{ping}/3"))
        .body("disk full")
        .send()
        .await
        .unwrap();

    let alert: Value = serde_json::from_str(&receiver.wait_for(1, LIMIT).await[0].text()).unwrap();
    assert_eq!(
        alert["incident"]["cause"],
        json!({"code": "FAILED", "summary": "import failed with exit code 3.", "url": format!("{}/causes/FAILED", harness.url)})
    );
    let mails = inbox.wait_for(1, LIMIT).await;
    let subject = mails[0].header("Subject").unwrap();
    assert!(
        subject.contains("import") && subject.contains("FAILED"),
        "{subject}"
    );
    let page = alert["incident"]["cause"]["url"].as_str().unwrap();
    assert_eq!(
        harness.client.get(page).send().await.unwrap().status(),
        StatusCode::OK
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_alert_once() {
    let harness = harness::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = App::start(Parts {
        keyring: harness::keyring(),
        ..Parts::new(
            listener,
            harness.database_url.clone(),
            harness.url.clone(),
            harness::senders(None),
        )
    })
    .unwrap();
    let second_url = format!("http://{}", second.address());
    let receiver = Receiver::start().await;
    report_events(&harness, &receiver).await;

    const MONITORS: usize = 20;
    for n in 0..MONITORS {
        let body = json!({"name": format!("job {n}"), "schedule": {"kind": "interval", "seconds": 1}, "grace_seconds": 1});
        let monitor = harness.monitor(body).await;
        // The other server receives half of the pings.
        let path = monitor["ping_url"]
            .as_str()
            .unwrap()
            .trim_start_matches(&harness.url)
            .to_owned();
        let base = if n % 2 == 0 { &harness.url } else { &second_url };
        assert_eq!(
            harness
                .client
                .get(format!("{base}{path}"))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }

    harness
        .wait_for("/api/v1/deliveries?limit=500", |seen| {
            let deliveries = seen["deliveries"].as_array().unwrap();
            deliveries.len() == MONITORS && deliveries.iter().all(|delivery| delivery["status"] == "sent")
        })
        .await;
    let incidents = harness.get("/api/v1/incidents?limit=500").await;
    assert_eq!(incidents["incidents"].as_array().unwrap().len(), MONITORS);
    let received = receiver.wait_for(MONITORS, LIMIT).await;
    let mut ids: Vec<&str> = received
        .iter()
        .map(|request| request.header("webhook-id").unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((received.len(), ids.len()), (MONITORS, MONITORS));
    second.stop().await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_answers_every_ping_that_it_took() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(json!({"name": "job", "schedule": {"kind": "interval", "seconds": 3600}}))
        .await;
    let ping = monitor["ping_url"].as_str().unwrap().to_owned();
    let pings = futures::future::join_all((0..200).map(|_| harness.client.get(&ping).send()));
    let Harness { app, pool, .. } = harness;
    let (answers, ()) = tokio::join!(pings, app.stop());

    let acknowledged = answers
        .into_iter()
        .flatten()
        .filter(|answer| answer.status() == 200)
        .count();
    let stored = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM ping")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(
        acknowledged as i64 <= stored,
        "{acknowledged} acknowledged, {stored} stored"
    );
}
