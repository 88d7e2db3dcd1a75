//! A writer that panics, as a caller and a load balancer see it.

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

    // The next start takes it, and after a while it counts as working.
    let taken = harness.client.get(url).send().await.unwrap();
    assert_eq!(taken.status(), StatusCode::OK);
    harness.ready().await;
    let green = harness.get("/readyz").await;
    assert_eq!(green["failed_loops"], json!([]));
    harness.stop().await;
}
