//! The reports of processes about a result backend, and the conclusions from them.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::result_backend::Trouble;
use deadbeat_domain::ids::{BrokerId, ProjectId};
use deadbeat_domain::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A process's report about its calls to the result backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The backend's URL, without user and password.
    pub address: Text,
    /// When the backend last answered this process, or `None` if it never has.
    #[serde(default)]
    pub answered_at: Option<DateTime<Utc>>,
    /// The method of Celery's backend that waits or fails, or `None` if there is no fault.
    #[serde(default)]
    pub operation: Option<Text>,
    /// Since when no call has been answered.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// The last time at which a call was waiting or failed.
    #[serde(default)]
    pub last_at: Option<DateTime<Utc>>,
    /// The number of processes that wait in a call.
    #[serde(default)]
    pub hanging: i64,
    /// The number of processes whose last call failed.
    #[serde(default)]
    pub failing: i64,
    /// The class of the last failure, and Redis's message.
    #[serde(default)]
    pub error: Option<Text>,
}

impl Report {
    /// Converts the times to the server's clock, which is ahead of the process's clock by `skew`. Clamps times in the future to `now`.
    pub(crate) fn on_our_clock(self, skew: TimeDelta, now: DateTime<Utc>) -> Self {
        let ours =
            |at: Option<DateTime<Utc>>| at.map(|at| at.checked_add_signed(skew).unwrap_or(now).min(now));
        Self {
            answered_at: ours(self.answered_at),
            since: ours(self.since),
            last_at: ours(self.last_at),
            ..self
        }
    }

    /// Reads a stored report. Returns `None` if there is none, or if this version cannot read it.
    pub(crate) fn read(stored: &Value) -> Option<Self> {
        serde_json::from_value(stored.clone()).ok()
    }

    /// Returns the fault, if there is one.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.operation.as_ref()?;
        let since = self.since?;
        Some(Trouble {
            since,
            last_at: self.last_at.unwrap_or(since),
        })
    }

    /// Returns true if some of the processes wait in a call.
    pub(crate) fn hangs(&self) -> bool {
        self.trouble().is_some() && self.hanging > 0
    }
}

/// Returns true if a worker waits for its result backend, according to its snapshot.
pub(crate) fn hangs(snapshot: &Value) -> bool {
    let report = snapshot.get("result_backend").and_then(Report::read);
    report.is_some_and(|report| report.hangs())
}

/// Returns true if a process's stored report contains a fault.
pub(crate) fn is_troubled(stored: Option<&Value>) -> bool {
    stored
        .and_then(|report| report.get("operation"))
        .is_some_and(Value::is_string)
}

/// A result backend with a fault, and the processes that report the fault.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The id of the same application's broker.
    pub id: BrokerId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// The backend's URL.
    pub address: String,
    /// The processes with a fault, by name, and their reports.
    pub troubled: Vec<(String, Report)>,
    /// Another process that got an answer after the fault began, and when.
    pub answered: Option<(String, DateTime<Utc>)>,
}

/// Returns the fault of all these processes together.
pub(super) fn worst(troubled: &[(String, Report)]) -> Option<Trouble> {
    troubled
        .iter()
        .filter_map(|(_, report)| report.trouble())
        .reduce(|one, other| Trouble {
            since: one.since.min(other.since),
            last_at: one.last_at.max(other.last_at),
        })
}

/// Returns since when a backend has had its fault, for an explanation.
pub(crate) fn since(backend: &Backend) -> Option<DateTime<Utc>> {
    worst(&backend.troubled).map(|trouble| trouble.since)
}
