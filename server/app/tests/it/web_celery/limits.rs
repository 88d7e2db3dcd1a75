//! Who may see the page, and how much the page shows.

use reqwest::header::{ALLOW, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{beat, page, place, sample, worker};
use crate::api_event::accepted;
use crate::contract::Caller;
use crate::harness;
use crate::web_dashboard::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_celery_says_what_to_do_and_hostile_names_are_only_text() {
    let harness = harness::start().await;
    let sdk = Caller::with_key(&harness, &harness.ping_key);
    let mut browser = Browser::signed_in(&harness).await;

    let empty = page(&mut browser, "/celery").await;
    assert!(
        empty.contains("<h1>No Celery process has reported yet</h1>"),
        "{empty}"
    );
    assert!(empty.contains("deadbeat.init(app)") && empty.contains(&format!("DEADBEAT_URL={}", harness.url)));
    let dashboard = page(&mut browser, "/").await;
    assert!(dashboard.contains("<a href=\"/celery?project=") && dashboard.contains("deadbeat.init(app)"));

    let hostile = "<script>alert(1)</script>";
    let odd = "a\"&b=c#d";
    let longest = json!({"task": hostile, "task_id": odd, "started_at": "2026-03-02T01:00:00Z"});
    accepted(
        &sdk,
        &[
            beat(hostile),
            worker(
                hostile,
                hostile,
                json!({"queues": [hostile, odd], "pool": hostile, "longest": longest, "celery": hostile}),
            ),
            worker(hostile, odd, json!({"state": "stopped"})),
            sample(
                hostile,
                &[
                    json!({"name": hostile, "depth": 1, "oldest_seconds": 5, "oldest_task": hostile}),
                    json!({"name": odd, "depth": 0}),
                ],
                json!({"transport": hostile, "worker": hostile, "maxmemory_policy": "allkeys-<script>"}),
            ),
        ],
    )
    .await;
    for path in [
        "/celery".to_owned(),
        format!("/celery?app={}", "%3Cscript%3Ealert(1)%3C/script%3E"),
    ] {
        let seen = page(&mut browser, &path).await;
        assert!(!seen.contains("<script"), "{seen}");
        assert!(
            seen.contains("&#60;script&#62;alert(1)&#60;/script&#62;</a>"),
            "{seen}"
        );
        assert!(seen.contains("task_id=a%22%26b%3Dc%23d\""), "{seen}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_shown_to_its_own_people_only() {
    let harness = harness::start().await;
    let services = harness.app.services();
    let stranger =
        deadbeat_services::people::account::create(services, "stranger@example.org", "a long password")
            .await
            .unwrap();
    let created = deadbeat_services::people::project::create(services, "Theirs", Some(stranger.id))
        .await
        .unwrap();
    let theirs = Caller::with_key(&harness, &created.ping_key);
    let ours = Caller::with_key(&harness, &harness.ping_key);
    accepted(
        &theirs,
        &[
            beat("secret"),
            // The other project uses the same names of an application and a queue.
            worker("shop", "celery@secret", json!({"queues": ["celery"]})),
            sample(
                "shop",
                &[json!({"name": "secret-queue", "depth": 3})],
                json!({"transport": "secret"}),
            ),
        ],
    )
    .await;
    accepted(
        &ours,
        &[
            worker("shop", "celery@ours", json!({})),
            sample("shop", &[json!({"name": "celery", "depth": 3})], json!({})),
        ],
    )
    .await;

    let answer = harness
        .client
        .get(format!("{}/celery", harness.url))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()[LOCATION]),
        (StatusCode::SEE_OTHER, &"/sign-in".parse().unwrap())
    );
    let mut browser = Browser::signed_in(&harness).await;
    let seen = page(&mut browser, "/celery").await;
    assert!(seen.contains("celery@ours") && !seen.contains("secret"), "{seen}");
    let project = created.project.id;
    for path in [
        format!("/celery?project={project}"),
        "/celery?app=secret".to_owned(),
        "/celery?project=x".to_owned(),
    ] {
        let answer = browser.get(&path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(!answer.text().await.unwrap().contains("secret@"), "{path}");
    }
    let posted = harness
        .client
        .request(Method::POST, format!("{}/celery", harness.url))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (posted.status(), &posted.headers()[ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_workers_the_worst_are_shown_and_the_others_counted() {
    let harness = harness::start().await;
    sqlx::query(
        "INSERT INTO worker (id, project_id, app, name, status, period_seconds, grace_seconds, last_seen_at, snapshot, queues, progress_at, created_at)
        SELECT gen_random_uuid(), project.id, 'shop', 'celery@w' || to_char(n, 'FM0000'),
            CASE WHEN n > 1180 THEN 'down' WHEN n > 1050 THEN 'paused' ELSE 'up' END, 5, 25, now(), '{}', '{celery}', now(), now()
        FROM project, generate_series(1, 1200) AS n",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    // With a second application, the page shows several.
    sqlx::query(
        "INSERT INTO queue (id, project_id, app, name, status, depth, seen_at, created_at)
        SELECT gen_random_uuid(), project.id, CASE WHEN n = 1 THEN 'other' ELSE 'shop' END, 'q' || n, 'up', n, now(), now()
        FROM project, generate_series(1, 31) AS n",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    let mut browser = Browser::signed_in(&harness).await;

    let all = page(&mut browser, "/celery").await;
    let alone = page(&mut browser, "/celery?app=shop").await;

    assert!(all.contains("<h1>20 workers are in trouble</h1>"), "{all}");
    let shown = |page: &str| page.matches("<tr role=\"row\" class=\"row-").count();
    assert_eq!(shown(&all), 50 + 25 + 1);
    assert!(
        all.contains("1,020 more are not shown: <a href=\"/celery?project=")
            && all.contains("5 more are not shown")
    );
    assert_eq!(shown(&alone), 250 + 30);
    assert!(
        alone.contains("820 more are not shown; <code>GET /api/v1/workers</code>"),
        "{alone}"
    );
    assert!(
        alone.contains("130 paused") && alone.contains("and 30 more"),
        "{alone}"
    );
    assert!(place(&alone, ">celery@w1200</a>") < place(&alone, ">celery@w0001</a>"));
    assert!(
        place(&alone, ">q31</a>") < place(&alone, ">q2</a>"),
        "the deepest queue comes first"
    );
    harness.stop().await;
}
