//! Counters of the retention since the start of this process, for metrics, logs and the command.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, Utc};

/// A kind of data that the retention removes. The order is that of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Tables with the pings of whole days, or with their bodies.
    Days,
    /// Bodies of pings of days that have no table.
    StrayBodies,
    /// Pings of days that have no table.
    StrayPings,
    /// Data of deleted monitors.
    Deleted,
    /// Pings beyond the number that a monitor may keep.
    ExcessPings,
    /// Ended runs.
    Runs,
    /// Traces of runs.
    Traces,
    /// Attempts of deliveries.
    Attempts,
    /// Settled deliveries.
    Deliveries,
    /// Members of resolved incidents.
    Members,
    /// Handles of the messages of resolved incidents.
    Handles,
    /// Resolved incidents.
    Incidents,
    /// Changes of status.
    Transitions,
    /// Changes in the change feed.
    Changes,
    /// Entries of audit trails.
    AuditEntries,
    /// Blind spells.
    BlindSpells,
    /// Expired sessions.
    Sessions,
    /// Quotas whose window has ended.
    Quotas,
    /// Revoked API keys.
    RevokedKeys,
    /// Workers that are no longer expected to report.
    Workers,
    /// Queues without a sample for a long time.
    Queues,
    /// Brokers without a sample for a long time.
    Brokers,
}

impl Kind {
    /// Every kind, in the order of a pass: the rows that belong to a row come before that row.
    pub const ALL: [Self; 22] = [
        Self::Days,
        Self::StrayBodies,
        Self::StrayPings,
        Self::Deleted,
        Self::ExcessPings,
        Self::Runs,
        Self::Traces,
        Self::Attempts,
        Self::Deliveries,
        Self::Members,
        Self::Handles,
        Self::Incidents,
        Self::Transitions,
        Self::Changes,
        Self::AuditEntries,
        Self::BlindSpells,
        Self::Sessions,
        Self::Quotas,
        Self::RevokedKeys,
        Self::Workers,
        Self::Queues,
        Self::Brokers,
    ];

    /// Returns the name of the kind in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Days => "days",
            Self::StrayBodies => "stray_bodies",
            Self::StrayPings => "stray_pings",
            Self::Deleted => "deleted",
            Self::ExcessPings => "excess_pings",
            Self::Runs => "runs",
            Self::Traces => "traces",
            Self::Attempts => "attempts",
            Self::Deliveries => "deliveries",
            Self::Members => "members",
            Self::Handles => "handles",
            Self::Incidents => "incidents",
            Self::Transitions => "transitions",
            Self::Changes => "changes",
            Self::AuditEntries => "audit_entries",
            Self::BlindSpells => "blind_spells",
            Self::Sessions => "sessions",
            Self::Quotas => "quotas",
            Self::RevokedKeys => "revoked_keys",
            Self::Workers => "workers",
            Self::Queues => "queues",
            Self::Brokers => "brokers",
        }
    }
}

/// What the retention has removed of one kind.
#[derive(Debug, Default)]
pub struct Count {
    removed: AtomicU64,
    steps: AtomicU64,
    most: AtomicU64,
    failures: AtomicU64,
}

impl Count {
    /// Returns the number of removed rows; for [`Kind::Days`], of tables.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// Returns the number of steps, each of them a transaction.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Returns the most rows that one step has removed.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// Returns the number of failed steps.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// What the retention has removed of each kind.
#[derive(Debug, Default)]
pub struct RemovalCounters {
    counts: [Count; Kind::ALL.len()],
    /// When a pass last ended without a failure, in microseconds since the epoch. 0: never.
    ended_at: AtomicI64,
}

impl RemovalCounters {
    /// Returns the counters of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &Count {
        &self.counts[kind as usize]
    }

    /// Returns when a pass last ended without a failure.
    #[must_use]
    pub fn last_pass_at(&self) -> Option<DateTime<Utc>> {
        Some(self.ended_at.load(Ordering::Relaxed))
            .filter(|micros| *micros != 0)
            .and_then(DateTime::from_timestamp_micros)
    }

    pub(super) fn step(&self, kind: Kind, removed: u64) {
        let count = self.of(kind);
        count.steps.fetch_add(1, Ordering::Relaxed);
        count.removed.fetch_add(removed, Ordering::Relaxed);
        count.most.fetch_max(removed, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, kind: Kind) {
        self.of(kind).failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn passed(&self, now: DateTime<Utc>) {
        self.ended_at.store(now.timestamp_micros(), Ordering::Relaxed);
    }
}
