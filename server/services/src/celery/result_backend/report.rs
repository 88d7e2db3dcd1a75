//! What processes report of a result backend, and what follows for it.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::celery::result_backend::Trouble;
use deadbeat_domain::ids::{BrokerId, ProjectId};
use deadbeat_domain::text::Text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a process says of its calls into the result backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it is, without user and password.
    pub address: Text,
    /// When it last answered; None: never, as far as this process knows.
    #[serde(default)]
    pub answered_at: Option<DateTime<Utc>>,
    /// The method of Celery's backend that waits or fails; None: no trouble.
    #[serde(default)]
    pub operation: Option<Text>,
    /// Since when nothing is answered.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// When that was last seen.
    #[serde(default)]
    pub last_at: Option<DateTime<Utc>>,
    /// Processes that wait in a call.
    #[serde(default)]
    pub hanging: i64,
    /// Processes of which the last call failed.
    #[serde(default)]
    pub failing: i64,
    /// The class of the last failure, and what Redis said.
    #[serde(default)]
    pub error: Option<Text>,
}

impl Report {
    /// By our clock, which is ahead of the process's by `skew`; nothing lies in times to come.
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

    /// As stored; None: it says nothing, or what an older version cannot read.
    pub(crate) fn read(stored: &Value) -> Option<Self> {
        serde_json::from_value(stored.clone()).ok()
    }

    /// What is wrong.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.operation.as_ref()?;
        let since = self.since?;
        Some(Trouble {
            since,
            last_at: self.last_at.unwrap_or(since),
        })
    }

    /// Some of its processes wait.
    pub(crate) fn hangs(&self) -> bool {
        self.trouble().is_some() && self.hanging > 0
    }
}

/// Whether a worker waits for its result backend, by its snapshot.
pub(crate) fn hangs(snapshot: &Value) -> bool {
    let report = snapshot.get("result_backend").and_then(Report::read);
    report.is_some_and(|report| report.hangs())
}

/// Whether what was stored of a process says that it is in trouble.
pub(crate) fn is_troubled(stored: Option<&Value>) -> bool {
    stored
        .and_then(|report| report.get("operation"))
        .is_some_and(Value::is_string)
}

/// A result backend in trouble, and who says so.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The broker of the same application.
    pub id: BrokerId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Where it is.
    pub address: String,
    /// The processes that are in trouble, by name.
    pub troubled: Vec<(String, Report)>,
    /// Another process that was answered since the trouble began, and when.
    pub answered: Option<(String, DateTime<Utc>)>,
}

/// The trouble of all of them together.
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
