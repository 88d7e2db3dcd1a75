//! The pages of runs and tasks, as a browser sees them.

use reqwest::StatusCode;
use reqwest::header::LOCATION;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api_event::{accepted, by_entry, entry, every, run, schedule};
use crate::contract::Caller;
use crate::harness;
use crate::web_dashboard::Browser;

fn of_nobody(kind: &str, id: Uuid, more: Value) -> Value {
    let mut event = run(kind, "", id, more);
    event["entry"] = Value::Null;
    event
}

async fn text(browser: &mut Browser<'_>, path: &str) -> String {
    let answer = browser.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_searches_a_run_and_reads_what_was_reported_of_it() {
    let harness = harness::start().await;
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let id = Uuid::new_v4();
    accepted(
        &sdk,
        &[
            of_nobody("run_published", id, json!({"queue": "mail", "worker": null, "task": "shop.<b>mail"})),
            of_nobody("run_started", id, json!({"queue": "mail", "at": "2026-03-02T01:00:02Z", "pid": 4711, "task": "shop.<b>mail"})),
            of_nobody(
                "run_finished",
                id,
                json!({"outcome": "retries_exhausted", "error": "Timeout", "duration_seconds": 1.75, "at": "2026-03-02T01:00:04Z",
                    "task": "shop.<b>mail"}),
            ),
            of_nobody("run_started", Uuid::new_v4(), json!({"task": "shop.other", "worker": "celery@w2"})),
        ],
    )
    .await;
    let mut browser = Browser::signed_in(&harness).await;

    let all = text(&mut browser, "/runs").await;
    assert!(
        all.contains("shop.&#60;b&#62;mail") && all.contains("shop.other"),
        "{all}"
    );
    assert!(!all.contains("<b>mail"));
    let failed = text(&mut browser, "/runs?state=failed&worker=&task=").await;
    assert!(
        failed.contains("retries exhausted</span>") && failed.contains("Timeout"),
        "{failed}"
    );
    assert!(!failed.contains("shop.other"));
    assert!(failed.contains(r#"<option value="failed" selected>"#));
    let none = text(&mut browser, "/runs?task=nobody").await;
    assert!(none.contains("No run matches your search."), "{none}");
    let fault = text(&mut browser, "/runs?from=noon").await;
    assert!(
        fault.contains(r#"role="alert""#) && fault.contains("noon"),
        "{fault}"
    );

    let one = text(&mut browser, &format!("/runs/{id}")).await;
    for words in [
        "published",
        "received",
        "started",
        "ended: retries exhausted",
        "took 1.75 s",
        "process 4711",
        "celery@w1",
        "Timeout",
    ] {
        assert_eq!(one.contains(words), words != "received", "{words}: {one}");
    }
    let tasks = text(&mut browser, "/tasks").await;
    assert!(
        tasks.contains("task=shop.%3Cb%3Email") && tasks.contains("100 %"),
        "{tasks}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_leads_to_its_runs() {
    let harness = harness::start().await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    accepted(
        &sdk,
        &[
            schedule(&[entry("nightly", every(3600.0))]),
            run(
                "run_started",
                "nightly",
                Uuid::new_v4(),
                json!({"task": "shop.nightly"}),
            ),
            of_nobody("run_started", Uuid::new_v4(), json!({"task": "shop.other"})),
        ],
    )
    .await;
    let monitor = by_entry(&caller, "nightly").await;
    let mut browser = Browser::signed_in(&harness).await;

    let dashboard = text(&mut browser, "/").await;
    let link = format!("&amp;monitor={}", monitor["id"].as_str().unwrap());
    let from = dashboard.find(&link).unwrap();
    let start = dashboard[..from].rfind("href=\"").unwrap() + 6;
    let path = dashboard[start..from + link.len()].replace("&amp;", "&");
    let runs = text(&mut browser, &path).await;

    assert!(
        runs.contains("of nightly") && runs.contains("shop.nightly"),
        "{runs}"
    );
    assert!(!runs.contains("shop.other"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_shown_to_its_own_people_only() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let stranger =
        deadbeat_services::people::account::create(services, "stranger@example.org", "a long password")
            .await
            .unwrap();
    let created = deadbeat_services::people::project::create(services, "Theirs", Some(stranger.id))
        .await
        .unwrap();
    let (project, their_ping_key) = (created.project.id, created.ping_key);
    let id = Uuid::new_v4();
    let theirs = Caller::with_key(&harness, &their_ping_key);
    accepted(
        &theirs,
        &[of_nobody("run_started", id, json!({"task": "secret.task"}))],
    )
    .await;

    for path in ["/runs", "/tasks", &format!("/runs/{id}")] {
        let answer = harness
            .client
            .get(format!("{}{path}", harness.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &"/sign-in".parse().unwrap())
        );
    }
    let mut browser = Browser::signed_in(&harness).await;
    for path in ["/runs", "/tasks"] {
        assert!(!text(&mut browser, path).await.contains("secret.task"));
    }
    for path in [
        format!("/runs/{id}"),
        format!("/runs/{id}?project={project}"),
        format!("/runs?project={project}"),
        format!("/tasks?project={project}"),
        "/runs/x".to_owned(),
        "/runs?cursor=x".to_owned(),
        "/tasks?hours=7".to_owned(),
    ] {
        let answer = browser.get(&path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(!answer.text().await.unwrap().contains("secret.task"), "{path}");
    }
    harness.stop().await;
}
