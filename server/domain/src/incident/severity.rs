//! Severities: how urgently an incident needs a person.

use serde::{Deserialize, Deserializer, Serialize};

use crate::incident::cause::Cause;
use crate::monitor::clip;

/// How urgently an incident needs a person. The order is from the least urgent to the most urgent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Severity {
    /// Work goes on. Somebody should look at it some day.
    Info,
    /// Some work fails or is late.
    Warning,
    /// A part on which much work depends has stopped. Quiet hours do not hold the alert.
    Critical,
}

impl Severity {
    /// Every severity, from the least urgent one on.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// As written in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Reads [`Severity::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }
}

/// Reads the value as a text first. So a number in its place is a value of the wrong type, and not malformed JSON.
impl TryFrom<String> for Severity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| {
            let allowed = Self::ALL.map(Self::as_str).join(", ");
            format!("is {:?}; one of {allowed} is allowed", clip(&text))
        })
    }
}

/// Reads the severity of a stored message. None: the field is missing, or a later version wrote another severity.
///
/// # Errors
/// None of its own.
pub(crate) fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Severity>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(Severity::parse))
}

impl Cause {
    /// The urgency of an incident with this cause, unless its monitor sets another one.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::BeatDown
            | Self::BeatCrashLoop
            | Self::BeatStalled
            | Self::BeatStorm
            | Self::ScheduleEmptied
            | Self::QueueUnconsumed
            | Self::BrokerDown
            | Self::HostLost => Severity::Critical,
            Self::Missed
            | Self::Unknown
            | Self::Failed
            | Self::RetriesExhausted
            | Self::Revoked
            | Self::Rejected
            | Self::Expired
            | Self::TimeLimit
            | Self::Overrun
            | Self::TooFast
            | Self::WorkerKilled
            | Self::WorkerLost
            | Self::GhostWorker
            | Self::PrefetchStarvation
            | Self::DuplicateRun
            | Self::RedeliveryLoop
            | Self::ScheduleReset
            | Self::BeatDuplicate
            | Self::AppNameShared
            | Self::LostInBroker
            | Self::QueueSlaBreach
            | Self::HostOverloaded
            | Self::ResultBackendDown => Severity::Warning,
            Self::WorkerWithoutSdk | Self::RateLimited | Self::ClockSkew => Severity::Info,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/alerting.md");

    #[test]
    fn each_cause_has_the_severity_that_the_document_says() {
        let mut table = String::from("| severity | causes |\n| --- | --- |\n");
        for severity in Severity::ALL.into_iter().rev() {
            let causes: Vec<String> = Cause::ALL
                .into_iter()
                .filter(|cause| cause.severity() == severity)
                .map(|cause| format!("`{}`", cause.as_str()))
                .collect();
            table.push_str(&format!("| `{}` | {} |\n", severity.as_str(), causes.join(", ")));
        }

        assert!(
            DOCUMENT.contains(&table),
            "docs/alerting.md must hold:\n\n{table}"
        );
    }

    #[test]
    fn severities_are_read_back_and_are_what_json_says() {
        for severity in Severity::ALL {
            assert_eq!(Severity::parse(severity.as_str()), Some(severity));
            assert_eq!(serde_json::to_value(severity).unwrap(), severity.as_str());
        }
        assert_eq!(Severity::parse("Critical"), None);
        assert!(Severity::Critical > Severity::Warning && Severity::Warning > Severity::Info);
    }
}
