//! Causes: the codes that say why an incident opened. Messages, pages and the API use these codes.

use serde::Serialize;

use crate::monitor::run::Outcome;

/// A cause. A wrong cause is worse than none: use a code only if the evidence suffices for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Cause {
    /// A report did not come before its deadline.
    Missed,
    /// A run that Beat should have sent did not come, and the known facts do not show why.
    Unknown,
    /// A failure was reported.
    Failed,
    /// A task failed, and its retries are used up.
    RetriesExhausted,
    /// A person or a program revoked the task.
    Revoked,
    /// A task rejected its message, or a worker refused it before the task began.
    Rejected,
    /// A message had expired before a worker could begin it.
    Expired,
    /// A run was ended by its time limit, soft or hard.
    TimeLimit,
    /// A run took longer than its longest run, or far longer than any run before.
    Overrun,
    /// Several runs in a row took far less time than any run before.
    TooFast,
    /// The process that ran the task was killed.
    WorkerKilled,
    /// A worker fell silent without signing off.
    WorkerLost,
    /// A worker reports, but executes nothing although messages wait for it.
    GhostWorker,
    /// A message waits inside a busy worker while another worker is idle.
    PrefetchStarvation,
    /// Workers executed one message twice.
    DuplicateRun,
    /// A message is redelivered again and again, because each process that runs it dies.
    RedeliveryLoop,
    /// Celery Beat sends no reports.
    BeatDown,
    /// Celery Beat's process crashes again and again, and misses slots.
    BeatCrashLoop,
    /// Celery Beat's process lives, but sends nothing.
    BeatStalled,
    /// Celery Beat sends one entry again and again.
    BeatStorm,
    /// Beat forgets at each start when it last sent an entry, so the entry never becomes due.
    ScheduleReset,
    /// Beat lists no enabled entry any more: the whole schedule vanished.
    ScheduleEmptied,
    /// Two Beats of one schedule run at once, and send every entry twice.
    BeatDuplicate,
    /// Two applications with the same name run at the same time.
    AppNameShared,
    /// A worker consumes messages and does not report: it lacks the SDK, or its key.
    WorkerWithoutSdk,
    /// A message was sent, and is neither in its queue nor with a worker.
    LostInBroker,
    /// Messages wait in a queue that nobody consumes.
    QueueUnconsumed,
    /// A queue's oldest message has waited longer than the limit.
    QueueSlaBreach,
    /// Messages wait inside a worker because of their task's rate limit.
    RateLimited,
    /// Other processes take the CPUs that a worker needs: its runs are late.
    HostOverloaded,
    /// The broker cannot be reached.
    BrokerDown,
    /// The result backend does not answer, or refuses results.
    ResultBackendDown,
    /// A host's clock differs from the server's.
    ClockSkew,
    /// No Beat and no worker of a host reports any more: all stopped reporting at the same time.
    HostLost,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 34] = [
        Self::Missed,
        Self::Unknown,
        Self::Failed,
        Self::RetriesExhausted,
        Self::Revoked,
        Self::Rejected,
        Self::Expired,
        Self::TimeLimit,
        Self::Overrun,
        Self::TooFast,
        Self::WorkerKilled,
        Self::WorkerLost,
        Self::GhostWorker,
        Self::PrefetchStarvation,
        Self::DuplicateRun,
        Self::RedeliveryLoop,
        Self::BeatDown,
        Self::BeatCrashLoop,
        Self::BeatStalled,
        Self::BeatStorm,
        Self::ScheduleReset,
        Self::ScheduleEmptied,
        Self::BeatDuplicate,
        Self::AppNameShared,
        Self::WorkerWithoutSdk,
        Self::LostInBroker,
        Self::QueueUnconsumed,
        Self::QueueSlaBreach,
        Self::RateLimited,
        Self::HostOverloaded,
        Self::BrokerDown,
        Self::ResultBackendDown,
        Self::ClockSkew,
        Self::HostLost,
    ];

    /// As written in SQL, JSON and pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "MISSED",
            Self::Unknown => "UNKNOWN",
            Self::Failed => "FAILED",
            Self::RetriesExhausted => "RETRIES_EXHAUSTED",
            Self::Revoked => "REVOKED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::TimeLimit => "TIME_LIMIT",
            Self::Overrun => "OVERRUN",
            Self::TooFast => "TOO_FAST",
            Self::WorkerKilled => "WORKER_KILLED",
            Self::WorkerLost => "WORKER_LOST",
            Self::GhostWorker => "GHOST_WORKER",
            Self::PrefetchStarvation => "PREFETCH_STARVATION",
            Self::DuplicateRun => "DUPLICATE_RUN",
            Self::RedeliveryLoop => "REDELIVERY_LOOP",
            Self::BeatDown => "BEAT_DOWN",
            Self::BeatCrashLoop => "BEAT_CRASH_LOOP",
            Self::BeatStalled => "BEAT_STALLED",
            Self::BeatStorm => "BEAT_STORM",
            Self::ScheduleReset => "SCHEDULE_RESET",
            Self::ScheduleEmptied => "SCHEDULE_EMPTIED",
            Self::BeatDuplicate => "BEAT_DUPLICATE",
            Self::AppNameShared => "APP_NAME_SHARED",
            Self::WorkerWithoutSdk => "WORKER_WITHOUT_SDK",
            Self::LostInBroker => "LOST_IN_BROKER",
            Self::QueueUnconsumed => "QUEUE_UNCONSUMED",
            Self::QueueSlaBreach => "QUEUE_SLA_BREACH",
            Self::RateLimited => "RATE_LIMITED",
            Self::HostOverloaded => "HOST_OVERLOADED",
            Self::BrokerDown => "BROKER_DOWN",
            Self::ResultBackendDown => "RESULT_BACKEND_DOWN",
            Self::ClockSkew => "CLOCK_SKEW",
            Self::HostLost => "HOST_LOST",
        }
    }

    /// Reads [`Cause::as_str`] back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }

    /// The path of the page that explains the cause and its repair.
    #[must_use]
    pub fn page(self) -> String {
        format!("/causes/{}", self.as_str())
    }

    /// The cause for a run that did not succeed, by its outcome.
    #[must_use]
    pub fn of_outcome(outcome: Option<Outcome>) -> Self {
        match outcome {
            None | Some(Outcome::Failure | Outcome::Aborted | Outcome::Success | Outcome::Ignored) => {
                Self::Failed
            }
            Some(Outcome::RetriesExhausted) => Self::RetriesExhausted,
            Some(Outcome::Revoked) => Self::Revoked,
            Some(Outcome::Rejected) => Self::Rejected,
            Some(Outcome::Expired) => Self::Expired,
            Some(Outcome::TimeLimit) => Self::TimeLimit,
            Some(Outcome::Lost) => Self::WorkerKilled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_and_are_what_json_says() {
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.as_str()), Some(cause));
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
        assert_eq!(Cause::parse("missed"), None);
        assert_eq!(Cause::BeatDown.page(), "/causes/BEAT_DOWN");
    }
}
