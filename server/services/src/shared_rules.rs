//! Rules that the server and the SDK share. `tests/fixtures/shared-rules.json` lists them, and `sdk-python/tests/test_shared_rules.py` tests the SDK.

use serde_json::Value;

use crate::celery::{broker, worker};
use crate::monitor;

#[test]
fn limits_and_defaults_are_those_that_the_sdk_counts_on() {
    let rules: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/shared-rules.json"
    )))
    .unwrap();
    assert_eq!(rules["canary"], crate::celery::gather::view::CANARY);
    for (name, limit) in [
        ("running_runs_of_a_worker", worker::MOST_RUNNING),
        ("running_tasks_of_a_worker", worker::MOST_TASKS),
        ("rate_limits_of_a_worker", worker::MOST_LIMITS),
        ("workers_of_a_sample", broker::ANSWERING),
    ] {
        assert_eq!(rules["limits"][name]["server"], limit, "{name}");
    }
    for (name, seconds) in [
        (
            "beat_period",
            crate::celery::beat::schedule_sync::entries::PERIOD_SECONDS,
        ),
        (
            "beat_grace",
            crate::celery::beat::schedule_sync::entries::GRACE_SECONDS,
        ),
        ("monitor_grace", monitor::DEFAULT_GRACE_SECONDS),
    ] {
        assert_eq!(rules["seconds"][name].as_f64(), Some(seconds), "{name}");
    }
}
