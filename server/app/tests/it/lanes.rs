//! A writer that panics, as seen by a caller and a load balancer.

use std::sync::Arc;

use deadbeat_app::clock::SystemClock;
use deadbeat_testkit::PoisonedClock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_panics_is_named_by_readyz_until_it_works_again() {
    let poison = PoisonedClock::new(Arc::new(SystemClock), "signal::writer");
    let harness = harness::start_by(Arc::new(poison.clone()), None, false).await;
    harness.ready().await;
    let monitor = harness
        .monitor(json!({"name": "job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let url = monitor["ping_url"].as_str().unwrap();

    poison.poison(1);
    let refused = harness.client.get(url).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let red = harness.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(red.status(), StatusCode::SERVICE_UNAVAILABLE);
    let red: Value = red.json().await.unwrap();
    let named = red["failed_loops"][0].as_str().unwrap();
    assert!(named.starts_with("writer "), "{red}");

    // The next start of the lane writes the signal. After a while, the lane counts as working.
    let taken = harness.client.get(url).send().await.unwrap();
    assert_eq!(taken.status(), StatusCode::OK);
    harness.ready().await;
    let green = harness.get("/readyz").await;
    assert_eq!(green["failed_loops"], json!([]));
    let loops = green["loops"].as_array().unwrap();
    let writer = loops.iter().find(|one| one["name"] == named).unwrap();
    assert_eq!((&writer["works"], &writer["failures"]), (&json!(true), &json!(1)));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loop_reports_in_one_shape() {
    let harness = harness::start().await;
    harness.ready().await;
    let names = |seen: &Value| -> Vec<String> {
        let loops = seen["loops"].as_array().unwrap().iter();
        loops
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let of = |seen: &Value, name: &str| -> Value {
        let mut loops = seen["loops"].as_array().unwrap().iter();
        loops.find(|one| one["name"] == name).unwrap().clone()
    };

    let turned = [
        "delivery",
        "evaluator",
        "listening",
        "lost_hosts",
        "registry",
        "sealing",
        "zone_data",
    ];
    let seen = harness
        .wait_for("/readyz", |seen| {
            turned
                .iter()
                .all(|name| !of(seen, name)["last_success_age_seconds"].is_null())
        })
        .await;

    let all = [
        "delivery",
        "evaluator",
        "listening",
        "lost_hosts",
        "lost_runs",
        "registry",
        "retention",
        "sealing",
        "trace writer",
        "unbegun_runs",
        "unseen",
        "writer 1",
        "writer 2",
        "zone_data",
    ];
    assert_eq!(names(&seen), all);
    assert_eq!(of(&seen, "delivery")["backlog"], 0);
    assert_eq!(of(&seen, "sealing")["backlog"], 0);
    assert!(of(&seen, "evaluator")["lag_seconds"].as_f64().unwrap() >= 0.0);
    let metrics = harness.request(Method::GET, "/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for name in all {
        assert!(of(&seen, name)["works"].as_bool().unwrap(), "{name}");
        assert!(
            metrics.contains(&format!("deadbeat_loop_works{{loop=\"{name}\"}} 1")),
            "{name}"
        );
        let failures = format!("deadbeat_loop_failures_total{{loop=\"{name}\"}} ");
        assert!(metrics.contains(&failures), "{name}");
    }
    harness.stop().await;
}
