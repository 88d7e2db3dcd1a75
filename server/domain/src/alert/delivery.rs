//! Deliveries: how an attempt can end, and when the next one follows.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

/// Why an attempt did not succeed: the label of attempts in SQL, JSON and metrics. The attempt's detail says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The receiver does not accept the credentials: HTTP 401 or 403, SMTP 530 or 535.
    Auth,
    /// The receiver asks for fewer messages: HTTP 429.
    RateLimit,
    /// Deadbeat must not connect to the address or port, for example in a private network.
    RefusedAddress,
    /// The receiver does not accept the request: another 4xx, or a permanent SMTP error.
    ClientError,
    /// The receiver is at fault: a 5xx, or a temporary SMTP error.
    ServerError,
    /// The answer is a redirect, which is not followed.
    Redirect,
    /// No connection, or no answer, within the limit.
    Timeout,
    /// The TLS handshake failed, for example because of an expired certificate.
    Tls,
    /// The name has no address, or the connection was refused or broken.
    Connection,
    /// The channel's settings or this server's settings are wrong. Nothing was sent.
    Setup,
    /// A fault in Deadbeat.
    Internal,
}

impl Reason {
    /// Every reason, in the order of the variants.
    pub const ALL: [Self; 11] = [
        Self::Auth,
        Self::RateLimit,
        Self::RefusedAddress,
        Self::ClientError,
        Self::ServerError,
        Self::Redirect,
        Self::Timeout,
        Self::Tls,
        Self::Connection,
        Self::Setup,
        Self::Internal,
    ];

    /// Its name in SQL, JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::RateLimit => "rate_limit",
            Self::RefusedAddress => "refused_address",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Redirect => "redirect",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Connection => "connection",
            Self::Setup => "setup",
            Self::Internal => "internal",
        }
    }

    /// The reason for an HTTP status that is no success.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 | 407 => Self::Auth,
            429 => Self::RateLimit,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver accepted the message.
    Sent {
        /// HTTP or SMTP code.
        code: Option<i32>,
        /// The data that a later alert of the incident needs to change this message, for example Slack's channel and
        /// `ts`. It holds no secret and at most [`HANDLE_BYTES`]. None: the kind does not change messages.
        handle: Option<Value>,
    },
    /// A temporary fault: try again.
    Retry {
        /// The label.
        reason: Reason,
        /// HTTP or SMTP code.
        code: Option<i32>,
        /// The fault, for a person.
        detail: String,
        /// The wait that the receiver asked for.
        retry_after: Option<TimeDelta>,
    },
    /// A permanent fault: no retry can succeed, so Deadbeat switches the channel off.
    Failed {
        /// The label.
        reason: Reason,
        /// HTTP or SMTP code.
        code: Option<i32>,
        /// What a person must repair.
        detail: String,
    },
}

impl Outcome {
    /// The label of an attempt that did not succeed.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Sent { .. } => None,
            Self::Retry { reason, .. } | Self::Failed { reason, .. } => Some(*reason),
        }
    }
}

/// A handle whose JSON is longer is not stored.
pub const HANDLE_BYTES: usize = 2_048;

/// How long a delivery is retried.
pub const PATIENCE: TimeDelta = TimeDelta::hours(24);

/// True if an unsettled delivery is too old to send. Example: the outbox of a restored backup holds alerts of a past
/// day.
#[must_use]
pub fn is_too_old(created_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - created_at > PATIENCE
}

/// Waits between attempts, in seconds; the last one repeats. Early attempts follow closely, because an alert is worth
/// most while it is fresh.
const WAITS: [i64; 9] = [2, 5, 15, 30, 60, 300, 900, 1_800, 3_600];

/// Returns when to retry after attempt number `attempt` (from 1) failed at `now`. None: [`PATIENCE`] is over.
///
/// `jitter` in 0..1 spreads the attempts by ±20 %, so that a thousand deliveries to one failing endpoint do not retry
/// at the same time. The receiver's `Retry-After` is honoured up to an hour.
#[must_use]
pub fn next_attempt(
    created_at: DateTime<Utc>,
    attempt: i32,
    retry_after: Option<TimeDelta>,
    jitter: f64,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let index = usize::try_from(attempt.max(1) - 1)
        .unwrap_or(usize::MAX)
        .min(WAITS.len() - 1);
    let seconds = WAITS[index] as f64 * (0.8 + 0.4 * jitter.clamp(0.0, 1.0));
    let wait = TimeDelta::milliseconds((seconds * 1000.0) as i64);
    let asked = retry_after
        .unwrap_or_default()
        .clamp(TimeDelta::zero(), TimeDelta::hours(1));
    let at = now + wait.max(asked);
    (at <= created_at + PATIENCE).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn tries_come_soon_at_first_and_end_after_a_day() {
        assert_eq!(next_attempt(at(0), 1, None, 0.5, at(0)), Some(at(2)));
        let mut now = at(0);
        let mut attempts = 1;
        while let Some(next) = next_attempt(at(0), attempts, None, 0.5, now) {
            assert!(next > now);
            now = next;
            attempts += 1;
        }
        assert!(now <= at(86_400));
        assert!(
            now >= at(86_400 - 2 * 3_600),
            "gave up {} s after the start",
            (now - at(0)).num_seconds()
        );
    }

    #[test]
    fn what_waited_for_more_than_a_day_is_too_old() {
        assert!(!is_too_old(at(0), at(86_400)));
        assert!(is_too_old(at(0), at(86_401)));
        assert!(!is_too_old(at(10), at(0)), "the clock was stepped back");
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        assert_eq!(
            next_attempt(at(0), 1, Some(TimeDelta::seconds(90)), 0.0, at(0)),
            Some(at(90))
        );
        assert_eq!(
            next_attempt(at(0), 1, Some(TimeDelta::days(9)), 0.0, at(0)),
            Some(at(3_600))
        );
        assert_eq!(
            next_attempt(at(0), 1, Some(TimeDelta::seconds(-5)), 0.5, at(0)),
            Some(at(2))
        );
    }
}
