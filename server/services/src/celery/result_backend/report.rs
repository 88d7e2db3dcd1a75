//! The reports of processes about a result backend, and what follows from them.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::result_backend::Trouble;
use deadbeat_domain::ids::{BrokerId, ProjectId};
use deadbeat_domain::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A process's report about its calls to the result backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The backend's address, without user and password.
    pub address: Text,
    /// When it last answered this process. None: it never has.
    #[serde(default)]
    pub answered_at: Option<DateTime<Utc>>,
    /// The method of Celery's backend that waits or fails. None: no trouble.
    #[serde(default)]
    pub operation: Option<Text>,
    /// Since when no call was answered.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// When that was last so.
    #[serde(default)]
    pub last_at: Option<DateTime<Utc>>,
    /// Number of processes that wait in a call.
    #[serde(default)]
    pub hanging: i64,
    /// Number of processes whose last call failed.
    #[serde(default)]
    pub failing: i64,
    /// The class of the last failure, and Redis's message.
    #[serde(default)]
    pub error: Option<Text>,
}

impl Report {
    /// Converts its times to the server's clock, which is ahead of the process's by `skew`. Clamps times in the future
    /// to `now`.
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

    /// Reads a stored report. None: there is none, or this version cannot read it.
    pub(crate) fn read(stored: &Value) -> Option<Self> {
        serde_json::from_value(stored.clone()).ok()
    }

    /// The trouble, if there is any.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.operation.as_ref()?;
        let since = self.since?;
        Some(Trouble {
            since,
            last_at: self.last_at.unwrap_or(since),
        })
    }

    /// Whether some of its processes wait.
    pub(crate) fn hangs(&self) -> bool {
        self.trouble().is_some() && self.hanging > 0
    }
}

/// Whether a worker waits for its result backend, by its snapshot.
pub(crate) fn hangs(snapshot: &Value) -> bool {
    let report = snapshot.get("result_backend").and_then(Report::read);
    report.is_some_and(|report| report.hangs())
}

/// Whether a process's stored report tells of trouble.
pub(crate) fn is_troubled(stored: Option<&Value>) -> bool {
    stored
        .and_then(|report| report.get("operation"))
        .is_some_and(Value::is_string)
}

/// A result backend with trouble, and the processes that report it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The id of the same application's broker.
    pub id: BrokerId,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its address.
    pub address: String,
    /// The processes with trouble, by name, and their reports.
    pub troubled: Vec<(String, Report)>,
    /// Another process that got an answer after the trouble began, and when.
    pub answered: Option<(String, DateTime<Utc>)>,
}

/// The trouble of all of these processes together.
pub(super) fn worst(troubled: &[(String, Report)]) -> Option<Trouble> {
    troubled
        .iter()
        .filter_map(|(_, report)| report.trouble())
        .reduce(|one, other| Trouble {
            since: one.since.min(other.since),
            last_at: one.last_at.max(other.last_at),
        })
}

/// Since when the trouble of a backend lasts, for an explanation.
pub(crate) fn since(backend: &Backend) -> Option<DateTime<Utc>> {
    worst(&backend.troubled).map(|trouble| trouble.since)
}
