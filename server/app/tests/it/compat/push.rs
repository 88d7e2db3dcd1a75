//! Push URLs and telemetry of other products, as their scripts call them.

use deadbeat_app::Parts;
use deadbeat_services::people::quota::QuotaSettings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{self, Harness};

struct Job {
    path: String,
    token: String,
}

impl Job {
    async fn make(harness: &Harness) -> Self {
        let monitor = harness
            .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 3600}}))
            .await;
        let url = monitor["ping_url"].as_str().unwrap();
        Self {
            path: format!("/api/v1/monitors/{}", monitor["id"].as_str().unwrap()),
            token: url.rsplit('/').next().unwrap().to_owned(),
        }
    }

    /// Returns the monitor's newest ping.
    async fn newest(&self, harness: &Harness) -> Value {
        harness.get(&format!("{}/pings?limit=1", self.path)).await["pings"][0].clone()
    }
}

async fn call(harness: &Harness, method: &str, path: &str, body: &str) -> (u16, String) {
    let method: Method = method.parse().unwrap();
    let request = harness.client.request(method, format!("{}{path}", harness.url));
    let answer = request.body(body.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_push_url_reports_what_its_product_means() {
    let harness = harness::start().await;
    let job = Job::make(&harness).await;
    let token = &job.token;
    let plain = token.replace('-', "");
    let ok = "{\"ok\":true}";
    let got_it = "Got it, thanks!\n";
    for (method, path, body, kind, answer) in [
        (
            "GET",
            format!("/api/push/{token}?status=up&msg=OK&ping=12.5"),
            "",
            "success",
            (200, ok),
        ),
        ("POST", format!("/api/push/{plain}"), "", "success", (200, ok)),
        (
            "DELETE",
            format!("/api/push/{token}?status=down&msg=broken"),
            "",
            "fail",
            (200, ok),
        ),
        (
            "GET",
            format!("/api/push/{token}?status=nonsense&ping=1e12"),
            "",
            "fail",
            (200, ok),
        ),
        (
            "GET",
            format!("/api/v1/heartbeat/{token}"),
            "",
            "success",
            (200, ""),
        ),
        (
            "POST",
            format!("/api/v1/heartbeat/{plain}/"),
            "output",
            "success",
            (200, ""),
        ),
        (
            "POST",
            format!("/api/v1/heartbeat/{token}/fail"),
            "output",
            "fail",
            (200, ""),
        ),
        (
            "GET",
            format!("/api/v1/heartbeat/{token}/0"),
            "",
            "success",
            (200, ""),
        ),
        (
            "GET",
            format!("/api/v1/heartbeat/{token}/7"),
            "",
            "fail",
            (200, ""),
        ),
        ("GET", format!("/{token}?m=done"), "", "success", (202, got_it)),
        (
            "GET",
            format!("/{token}?m=done&s=0"),
            "",
            "success",
            (202, got_it),
        ),
        ("POST", format!("/{token}?s="), "", "success", (202, got_it)),
        ("GET", format!("/{token}?s=1&m=broken"), "", "fail", (202, got_it)),
        ("GET", format!("/{plain}/?s=127"), "", "fail", (202, got_it)),
        // Without its parameters, the same path is a ping URL of Deadbeat.
        ("GET", format!("/{token}"), "", "success", (200, "OK")),
        ("GET", format!("/{token}/fail?s=0"), "", "fail", (200, "OK")),
        ("GET", format!("/start/{token}"), "", "start", (200, "OK")),
        ("POST", format!("/finish/{token}/"), "", "success", (200, "OK")),
        (
            "POST",
            format!("/integrations/v1/formatted_webhook/{token}/heartbeat/"),
            "",
            "success",
            (200, "Ok."),
        ),
        (
            "GET",
            format!("/integrations/v1/alertmanager/{plain}/heartbeat"),
            "",
            "success",
            (200, "Ok."),
        ),
        (
            "POST",
            format!("/push/{token}"),
            r#"{"status":"firing","alerts":[{}]}"#,
            "success",
            (200, "OK"),
        ),
        (
            "POST",
            format!("/push/{plain}/"),
            r#"{"status":"resolved","alerts":[{}]}"#,
            "fail",
            (200, "OK"),
        ),
    ] {
        let before = harness.get(&job.path).await["ping_count"].as_i64().unwrap();
        let (status, text) = call(&harness, method, &path, body).await;
        assert_eq!((status, text.as_str()), answer, "{method} {path}");
        assert_eq!(
            harness.get(&job.path).await["ping_count"],
            before + 1,
            "{method} {path}"
        );
        assert_eq!(job.newest(&harness).await["kind"], kind, "{method} {path}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_answered_as_its_product_does_and_records_nothing() {
    let harness = harness::start().await;
    let job = Job::make(&harness).await;
    let token = &job.token;
    let stranger = Uuid::new_v4();
    for wrong in [
        stranger.to_string(),
        "nonsense".to_owned(),
        format!("{token}0"),
        "\u{2603}".to_owned(),
        "%00".to_owned(),
    ] {
        for (method, path, status) in [
            ("GET", format!("/api/push/{wrong}"), 404),
            ("GET", format!("/api/v1/heartbeat/{wrong}"), 404),
            ("GET", format!("/{wrong}?s=0"), 404),
            ("GET", format!("/start/{wrong}"), 404),
            ("GET", format!("/integrations/v1/webhook/{wrong}/heartbeat/"), 403),
            ("POST", format!("/push/{wrong}"), 404),
        ] {
            assert_eq!(
                call(&harness, method, &path, "").await.0,
                status,
                "{method} {path}"
            );
        }
    }
    let (status, text) = call(&harness, "GET", &format!("/api/push/{stranger}"), "").await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, answer),
        (
            404,
            json!({"ok": false, "msg": "Monitor not found or not active."})
        )
    );
    for path in [
        format!("/api/v1/heartbeat/{token}/256"),
        format!("/api/v1/heartbeat/{token}/start"),
        format!("/api/v1/heartbeat/{token}/7/8"),
    ] {
        assert_eq!(call(&harness, "GET", &path, "").await.0, 404, "{path}");
    }
    assert_eq!(harness.get(&job.path).await["ping_count"], 0);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_confirm_a_subscription_is_kept_and_never_followed() {
    let harness = harness::start().await;
    let job = Job::make(&harness).await;
    let sink = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    sink.set_nonblocking(true).unwrap();
    let trap = format!("http://{}/confirm", sink.local_addr().unwrap());
    let url = format!("{}/push/{}", harness.url, job.token);
    let send = async |kind: &str, body: &Value| {
        let request = harness.client.post(&url).header("x-amz-sns-message-type", kind);
        let answer = request
            .header("Content-Type", "text/plain; charset=UTF-8")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    };

    let confirmation = json!({"Type": "SubscriptionConfirmation", "SubscribeURL": trap, "SigningCertURL": trap, "Token": "t"});
    send("SubscriptionConfirmation", &confirmation).await;
    assert_eq!(job.newest(&harness).await["kind"], "log");
    assert_eq!(
        harness.get(&job.path).await["status"],
        "new",
        "it is no sign of life"
    );
    send(
        "Notification",
        &json!({"Type": "Notification", "Message": "done", "UnsubscribeURL": trap, "SigningCertURL": trap}),
    )
    .await;
    assert_eq!(harness.get(&job.path).await["status"], "up");

    // Both reports are committed. Nothing that they could have started is left to wait for.
    harness.app.services().close().await;
    assert_eq!(sink.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_of_cloud_events_may_send_after_their_handshake() {
    let harness = harness::start().await;
    let job = Job::make(&harness).await;
    let url = format!("{}/push/{}", harness.url, job.token);
    let asked = harness
        .client
        .request(Method::OPTIONS, &url)
        .header("WebHook-Request-Origin", "events.example.org");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["webhook-allowed-origin"], "events.example.org");
    assert_eq!(harness.get(&job.path).await["ping_count"], 0);

    for (kind, wanted) in [
        ("org.example.backup.started", "start"),
        ("org.example.backup.failed", "fail"),
        ("org.example.backup", "success"),
    ] {
        let event = harness
            .client
            .post(&url)
            .header("ce-specversion", "1.0")
            .header("ce-type", kind)
            .header("ce-id", "1")
            .header("ce-source", "/b");
        assert_eq!(event.body("{}").send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(job.newest(&harness).await["kind"], wanted);
        let event = json!({"specversion": "1.0", "type": kind, "id": "1", "source": "/b"});
        let event = harness
            .client
            .post(&url)
            .header("Content-Type", "application/cloudevents+json")
            .body(event.to_string());
        assert_eq!(event.send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(job.newest(&harness).await["kind"], wanted);
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cronitors_telemetry_makes_its_monitor_and_pairs_a_series() {
    let harness = harness::start().await;
    let key = &harness.ping_key;
    for (query, status) in [
        ("state=run&series=a1&host=h&stamp=1.5&env=production", 200),
        (
            "state=complete&series=a1&metric=count:3&metric=duration:1.5&message=done",
            200,
        ),
        ("state=nonsense", 400),
    ] {
        let (seen, text) = call(&harness, "GET", &format!("/p/{key}/nightly-job?{query}"), "").await;
        assert_eq!(seen, status, "{query}: {text}");
    }
    let found = harness.get("/api/v1/monitors?slug=nightly-job").await;
    let job = &found["monitors"][0];
    assert_eq!(
        (&job["status"], &job["ping_count"], &job["last_duration_seconds"]),
        (&json!("up"), &json!(2), &json!(1.5))
    );
    assert_eq!(job["schedule"], json!({"kind": "interval", "seconds": 86_400}));
    let id = job["id"].as_str().unwrap();
    let runs = harness.get(&format!("/api/v1/monitors/{id}/runs")).await;
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");

    for (path, status) in [
        (format!("/p/{key}/nightly-job"), 200),
        (format!("/p/{key}/nightly-job/?state=fail&status_code=3"), 200),
        (format!("/p/{key}/My%20other%20job?state=ok"), 200),
        (format!("/p/{key}x/nightly-job"), 404),
        (format!("/p/{}/nightly-job", harness.api_key), 404),
        ("/p/nonsense/nightly-job".to_owned(), 404),
    ] {
        assert_eq!(call(&harness, "POST", &path, "").await.0, status, "{path}");
    }
    let found = harness.get("/api/v1/monitors").await;
    let names: Vec<&str> = found["monitors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["My other job", "nightly-job"]);
    assert_eq!(found["monitors"][1]["status"], "down");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_beyond_the_quota_is_refused_and_counted() {
    let quotas = QuotaSettings {
        pings_per_second: 1,
        ..QuotaSettings::default()
    };
    let harness = harness::start_changed(|parts| Parts { quotas, ..parts }).await;
    let job = Job::make(&harness).await;
    let mut refused = 0;
    for _ in 0..40 {
        let (status, _) = call(&harness, "GET", &format!("/api/push/{}", job.token), "").await;
        assert!(matches!(status, 200 | 429), "{status}");
        refused += u64::from(status == 429);
    }
    assert!(refused > 0);
    assert_eq!(harness.get(&job.path).await["ping_count"], 40 - refused);
    let metrics = harness
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains(&format!("\ndeadbeat_pings_limited_total {refused}\n")),
        "{metrics}"
    );
    harness.stop().await;
}
