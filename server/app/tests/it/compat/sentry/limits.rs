//! Limits behind the door of Sentry: clients get the answer that they hope for, and the server counts.

use deadbeat_app::Parts;
use deadbeat_services::people::quota::QuotaSettings;
use reqwest::{Method, StatusCode};

use super::{NIL, check_in, crontab, framed, monitor, monitors, send, to_envelope};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_quota_refuses_is_answered_as_if_it_were_taken_and_is_counted() {
    let quotas = QuotaSettings {
        pings_per_second: 1,
        created_monitors_per_day: 1,
        ..QuotaSettings::default()
    };
    let harness = harness::start_changed(|parts| Parts { quotas, ..parts }).await;
    for _ in 0..40 {
        let (status, _) = send(&harness, &check_in("job", "ok", NIL, &crontab("* * * * *"))).await;
        assert_eq!(status, StatusCode::OK);
    }

    let recorded = monitor(&harness, "job").await["ping_count"].as_u64().unwrap();
    assert!((19..40).contains(&recorded), "{recorded}");
    let metrics = harness
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let limited = metrics
        .lines()
        .find_map(|line| line.strip_prefix("deadbeat_pings_limited_total "))
        .unwrap();
    // Making the monitor took a ping of the quota, too.
    assert_eq!(limited.parse::<u64>().unwrap() + recorded, 40);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_no_more_monitors_than_its_project_may() {
    let quotas = QuotaSettings {
        created_monitors_per_day: 2,
        ..QuotaSettings::default()
    };
    let harness = harness::start_changed(|parts| Parts { quotas, ..parts }).await;
    for n in 0..4 {
        let (status, answer) = send(
            &harness,
            &check_in(&format!("job-{n}"), "ok", NIL, &crontab("* * * * *")),
        )
        .await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["errors"].is_array(), n >= 2, "{answer}");
    }
    assert_eq!(monitors(&harness).await.len(), 2);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_larger_than_the_limit_is_read_up_to_it() {
    let harness = harness::start().await;
    let item = framed("check_in", &check_in("job", "ok", NIL, &crontab("* * * * *")));
    let (headers, items) = item.split_once('\n').unwrap();
    let large = format!(
        "{{\"type\":\"attachment\",\"length\":1500000}}\n{}\n",
        "x".repeat(1_500_000)
    );
    for (envelope, pings) in [
        (format!("{headers}\n{items}{large}"), 1),
        (format!("{headers}\n{large}{items}"), 1),
    ] {
        let answer = to_envelope(&harness, &harness.ping_key)
            .body(envelope)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(monitor(&harness, "job").await["ping_count"], pings);
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ins_that_arrive_together_make_one_monitor_and_all_count() {
    let harness = harness::start().await;
    let items: Vec<_> = (1..=20)
        .map(|n| {
            let id = uuid::Uuid::from_u128(n).simple().to_string();
            check_in("job", "ok", &id, &crontab("* * * * *"))
        })
        .collect();
    let answers = futures::future::join_all(items.iter().map(|item| send(&harness, item))).await;

    for (status, answer) in answers {
        assert_eq!(
            (status, &answer["errors"]),
            (StatusCode::OK, &serde_json::Value::Null),
            "{answer}"
        );
    }
    let made = monitors(&harness).await;
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_eq!(made[0]["ping_count"], 20);
    harness.stop().await;
}
