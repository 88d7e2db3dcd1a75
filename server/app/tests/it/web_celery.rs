//! The page of Beats, brokers, queues and workers, as a browser sees it.

mod limits;

use chrono::TimeDelta;
use deadbeat_domain::time::Clock;
use deadbeat_testkit::StoppedClock;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Caller;
use crate::harness::{self, Harness};
use crate::web_dashboard::Browser;

const NOW: &str = "2026-03-02T01:00:10Z";

fn reported(kind: &str, fields: Value, more: &Value) -> Value {
    let mut event = json!({"id": Uuid::new_v4(), "type": kind, "at": "2026-03-02T01:00:10Z"});
    let event_fields = event.as_object_mut().unwrap();
    event_fields.extend(fields.as_object().unwrap().clone());
    event_fields.extend(more.as_object().unwrap().clone());
    event
}

fn beat(app: &str) -> Value {
    let fields =
        json!({"beat": app, "period_seconds": 15, "grace_seconds": 60, "host": format!("beat-{app}")});
    reported("beat_alive", fields, &json!({}))
}

fn worker(app: &str, name: &str, more: Value) -> Value {
    let fields = json!({"app": app, "worker": name, "state": "running", "period_seconds": 5, "pool": "prefork", "processes": 8,
        "active": 1, "reserved": 3, "accepted": 7, "queues": ["celery"], "rss_bytes": 412_000_000});
    reported("worker_snapshot", fields, &more)
}

fn sample(app: &str, queues: &[Value], more: Value) -> Value {
    let fields =
        json!({"app": app, "worker": "celery@w1", "reachable": true, "transport": "redis", "queues": queues});
    reported("broker_sample", fields, &more)
}

async fn page(browser: &mut Browser<'_>, path: &str) -> String {
    let answer = browser.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.text().await.unwrap()
}

/// Returns the row with this name as a person reads it: without tags, and with single blanks.
fn row_of(page: &str, name: &str) -> String {
    let row = page
        .split("<tr ")
        .find(|row| row.contains(&format!(">{name}</a>")))
        .unwrap_or_else(|| panic!("no row of {name} in {page}"));
    words(row.split("</tr>").next().unwrap())
}

fn words(html: &str) -> String {
    let text: String = html
        .split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| format!("{text} "))
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn place(page: &str, text: &str) -> usize {
    page.find(text).unwrap_or_else(|| panic!("no {text:?} in {page}"))
}

/// Sends events that happen now, from a client whose clock is `behind` by so much.
async fn report_events(sdk: &Caller<'_>, clock: &StoppedClock, behind: TimeDelta, mut events: Vec<Value>) {
    let now = json!(clock.now() - behind);
    for event in &mut events {
        event["at"] = now.clone();
    }
    let answer = sdk
        .post("/api/v1/events", &json!({"sent_at": now, "events": events}))
        .await;
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["status"], "accepted", "{result}");
    }
}

/// Lets time pass while these events arrive repeatedly. Then waits until the evaluator has judged them.
async fn go_on(
    harness: &Harness,
    clock: &StoppedClock,
    seconds: i64,
    sdk: &Caller<'_>,
    events: impl Fn() -> Vec<Value>,
) {
    for _ in 0..seconds / 5 {
        clock.advance(TimeDelta::seconds(5));
        report_events(sdk, clock, TimeDelta::zero(), events()).await;
    }
    harness.swept(clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_reported_in_words_with_its_cause_and_comes_first() {
    let (harness, clock) = harness::start_at(NOW).await;
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let task_id = Uuid::new_v4();
    let longest = json!({"task": "shop.resize", "task_id": task_id, "started_at": "2026-03-02T00:58:10Z"});
    let goes_on = || {
        vec![
            beat("shop"),
            worker(
                "shop",
                "celery@w1",
                json!({"longest": longest, "queues": ["celery", "slow"]}),
            ),
            sample(
                "shop",
                &[
                    json!({"name": "celery", "depth": 0}),
                    json!({"name": "mail", "depth": 1_204, "oldest_seconds": 180, "oldest_task": "shop.send"}),
                    json!({"name": "slow", "depth": 5, "oldest_seconds": 900}),
                ],
                json!({"maxmemory_policy": "allkeys-lru", "unacked": 7, "visibility_timeout_seconds": 3_600}),
            ),
            worker("calm", "celery@c1", json!({})),
        ]
    };
    let mut first = goes_on();
    first.extend([
        worker(
            "shop",
            "celery@a-lost",
            json!({"queues": ["celery", "mail-high"]}),
        ),
        worker("shop", "celery@old", json!({})),
        worker("shop", "celery@old", json!({"state": "stopped"})),
        reported(
            "publish_failed",
            json!({"beat": "shop", "entry": "nightly", "error": "OperationalError"}),
            &json!({}),
        ),
    ]);
    report_events(&sdk, &clock, TimeDelta::zero(), first).await;
    go_on(&harness, &clock, 45, &sdk, goes_on).await;

    let workers = Caller::new(&harness).get("/api/v1/workers").await;
    let statuses: Vec<&str> = workers["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["status"].as_str().unwrap())
        .collect();
    // The newest first report comes first.
    assert_eq!(statuses, ["paused", "down", "up", "up"]);
    let mut browser = Browser::signed_in(&harness).await;
    let seen = page(&mut browser, "/celery").await;

    assert!(
        seen.contains("<h1>2 queues and 1 worker are in trouble</h1>"),
        "{seen}"
    );
    let lost = row_of(&seen, "celery@a-lost");
    assert!(lost.starts_with("down") || lost.contains(" down "), "{lost}");
    assert!(
        lost.contains("WORKER_LOST It vanished without signing off."),
        "{lost}"
    );
    let up = row_of(&seen, "celery@w1");
    for reported in [
        "up",
        "prefork, 8 at once",
        "1 active",
        "3 reserved",
        "shop.resize",
        "celery, slow",
        "412 MB",
        "just now",
    ] {
        assert!(up.contains(reported), "{reported}: {up}");
    }
    assert!(seen.contains(&format!("&amp;task_id={task_id}\">shop.resize</a>")));
    let mail = row_of(&seen, "mail");
    assert!(
        mail.contains("QUEUE_UNCONSUMED Messages wait in it, but no worker consumes it. Since 45 s ago"),
        "{mail}"
    );
    assert!(
        mail.contains("1,204") && mail.contains("shop.send") && mail.contains("no worker"),
        "{mail}"
    );
    let slow = row_of(&seen, "slow");
    assert!(
        slow.contains("QUEUE_SLA_BREACH") && slow.contains("15 min celery@w1"),
        "{slow}"
    );
    let quiet = row_of(&seen, "celery");
    assert!(
        quiet.contains("up") && quiet.contains("celery@w1") && quiet.contains("No longer: celery@a-lost"),
        "{quiet}"
    );
    assert!(
        !quiet.contains("celery@old"),
        "a worker that left consumes nothing: {quiet}"
    );
    let whole = words(&seen);
    assert!(
        whole.contains("maxmemory-policy is allkeys-lru : when its memory is full"),
        "{whole}"
    );
    assert!(
        whole.contains("The broker did not accept a message of this Beat, 45 s ago : OperationalError"),
        "{whole}"
    );
    assert!(
        whole.contains("1 paused: Deadbeat does not expect it to report celery@old signed off"),
        "{whole}"
    );

    // Down comes before up, and an application with a fault before one without, whatever their names are.
    assert!(place(&seen, ">calm</a>") > place(&seen, ">shop</a>"));
    assert!(place(&seen, ">celery@a-lost</a>") < place(&seen, ">celery@w1</a>"));
    assert!(place(&seen, ">mail</a>") < place(&seen, ">celery</a>"));

    // The dashboard says what to do, and the link leads there.
    let incident = seen
        .split("#incident-")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        page(&mut browser, "/")
            .await
            .contains(&format!("id=\"incident-{incident}\"")),
        "{incident}"
    );
    let calm = page(&mut browser, "/celery?app=calm").await;
    assert!(
        calm.contains("<h1>Nothing is in trouble")
            && calm.contains("celery@c1")
            && !calm.contains("celery@w1")
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fell_silent_with_its_host_says_so() {
    let (harness, clock) = harness::start_at(NOW).await;
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let on_node = |app: &str| {
        let mut beat = beat(app);
        beat["host"] = json!("node-1");
        beat
    };
    report_events(
        &sdk,
        &clock,
        TimeDelta::zero(),
        vec![on_node("bills"), on_node("shop")],
    )
    .await;
    go_on(&harness, &clock, 90, &sdk, Vec::new).await;

    let mut browser = Browser::signed_in(&harness).await;
    let seen = page(&mut browser, "/celery").await;

    let whole = words(&seen);
    assert!(whole.contains("2 Beats are in trouble"), "{whole}");
    let reported = "down HOST_LOST It fell silent together with everything on its host.";
    assert_eq!(whole.matches(reported).count(), 2, "{whole}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_and_a_broker_that_are_away_are_reported() {
    let (harness, clock) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    report_events(&sdk, &clock, TimeDelta::zero(), vec![beat("quiet"), beat("shop")]).await;
    let away = || {
        vec![sample(
            "shop",
            &[],
            json!({"reachable": false, "error": "ConnectionError"}),
        )]
    };
    go_on(&harness, &clock, 90, &sdk, away).await;

    let mut browser = Browser::signed_in(&harness).await;
    let seen = page(&mut browser, "/celery").await;

    let whole = words(&seen);
    // The broker is unreachable, and the Beat of its application may hang because of that. The page therefore shows no fault of Beat.
    assert!(whole.contains("1 Beat and 1 broker are in trouble"), "{whole}");
    assert!(
        whole.contains("down BEAT_DOWN It is silent: nothing is being scheduled."),
        "{whole}"
    );
    assert!(
        whole.contains("down BROKER_DOWN It does not answer. Since"),
        "{whole}"
    );
    assert!(whole.contains("Error ConnectionError"), "{whole}");
    let beats = caller.get("/api/v1/beats").await;
    assert!(
        beats["beats"]
            .as_array()
            .unwrap()
            .iter()
            .all(|beat| beat["trouble"].is_null()),
        "silence is not a `trouble`: {beats}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_reported_yet_says_so_and_the_api_has_it() {
    let (harness, clock) = harness::start_at(NOW).await;
    let (caller, sdk) = (
        Caller::new(&harness),
        Caller::with_key(&harness, &harness.ping_key),
    );
    let send = async || {
        // By the worker's own clock, the task started a minute ago.
        let longest = json!({"task": "shop.resize", "task_id": "1", "started_at": "2026-03-02T00:58:30Z"});
        let events = vec![
            beat("shop"),
            worker("shop", "celery@w1", json!({"longest": longest})),
        ];
        report_events(&sdk, &clock, TimeDelta::seconds(40), events).await;
    };
    send().await;

    let beats = caller.get("/api/v1/beats").await;
    assert_eq!(
        (
            &beats["beats"][0]["status"],
            &beats["beats"][0]["trouble"],
            &beats["beats"][0]["trouble_since"]
        ),
        (&json!("up"), &json!("CLOCK_SKEW"), &json!("2026-03-02T01:00:10Z"))
    );
    let workers = caller.get("/api/v1/workers").await;
    assert_eq!(
        workers["workers"][0]["longest"]["started_at"], "2026-03-02T00:59:10Z",
        "by the server's clock, as all times that are compared"
    );
    let mut browser = Browser::signed_in(&harness).await;
    let seen = words(&page(&mut browser, "/celery").await);
    assert!(seen.contains("1 Beat and 1 worker are in trouble"), "{seen}");
    assert!(
        seen.contains("CLOCK_SKEW Its clock is off. Since just now ; an incident opens if it lasts."),
        "{seen}"
    );
    assert!(!seen.contains("What to do"), "{seen}");

    clock.advance(TimeDelta::seconds(25));
    send().await;
    let seen = words(&page(&mut browser, "/celery").await);
    assert!(
        seen.contains("CLOCK_SKEW Its clock is off. Since 25 s ago . What to do"),
        "{seen}"
    );
    let beats = caller.get("/api/v1/beats").await;
    assert_eq!(beats["beats"][0]["status"], "down");
    assert_eq!(beats["beats"][0]["trouble_since"], "2026-03-02T01:00:10Z");
    harness.stop().await;
}
