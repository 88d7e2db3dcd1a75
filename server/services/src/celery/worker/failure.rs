//! Whether a worker ended by an error.

use deadbeat_store::celery::worker::Worker;
use serde_json::Value;

/// Returns true if the worker itself reported that it ended by an error.
pub(crate) fn has_failed(worker: &Worker) -> bool {
    let said = |field: &str| worker.snapshot.get(field);
    said("state").and_then(Value::as_str) == Some("stopped")
        && said("exit_code")
            .and_then(Value::as_i64)
            .is_some_and(|code| code != 0)
}
