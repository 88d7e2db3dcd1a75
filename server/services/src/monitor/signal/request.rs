//! A ping that arrived as a request, in any dialect.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use deadbeat_domain::monitor::ping::{PingKind, Signal, SignalDetail, Source};
use uuid::Uuid;

use super::incoming::{Address, Incoming};

/// The facts that a dialect reads from a request: the monitor, and its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The monitor.
    pub address: Address,
    /// The kind of the report.
    pub kind: PingKind,
    /// The exit code of the client's command, 0 to 255, or `None` if the client sent none.
    pub exit_code: Option<u8>,
    /// The client's run id.
    pub run_id: Option<Uuid>,
}

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The HTTP method.
    pub method: String,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's user agent.
    pub user_agent: Option<String>,
}

impl Incoming {
    /// Makes the signal of a request. `received_at` is the time when the request arrived: take it before any slow work.
    #[must_use]
    pub fn from_request(
        received_at: DateTime<Utc>,
        report: Report,
        sender: Sender,
        body: Vec<u8>,
    ) -> Box<Self> {
        Box::new(Self {
            address: report.address,
            signal: Signal {
                kind: report.kind,
                received_at,
                // A request does not contain the time of its client's clock.
                occurred_at: received_at,
                run_id: report.run_id,
                exit_code: report.exit_code,
                duration: None,
                source: Source::Http,
                detail: SignalDetail::default(),
                is_replayed: false,
            },
            method: Some(sender.method),
            remote_addr: sender.address.map(|address| address.to_string()),
            user_agent: sender.user_agent,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::ids::PingId;

    use super::*;

    #[test]
    fn a_request_becomes_a_signal_of_the_instant_at_which_it_came() {
        let received_at = "2026-03-02T01:00:00Z".parse().unwrap();
        let (id, run) = (PingId::generate(), Uuid::new_v4());
        let report = Report {
            address: Address::Ping(id),
            kind: PingKind::Fail,
            exit_code: Some(7),
            run_id: Some(run),
        };
        let sender = Sender {
            method: "PUT".to_owned(),
            address: Some("2001:db8::7".parse().unwrap()),
            user_agent: Some("curl/8".to_owned()),
        };

        let incoming = Incoming::from_request(received_at, report, sender, b"out".to_vec());

        assert_eq!(incoming.address, Address::Ping(id));
        let signal = Signal {
            kind: PingKind::Fail,
            received_at,
            occurred_at: received_at,
            run_id: Some(run),
            exit_code: Some(7),
            duration: None,
            source: Source::Http,
            detail: SignalDetail::default(),
            is_replayed: false,
        };
        assert_eq!(incoming.signal, signal);
        assert_eq!(incoming.method.as_deref(), Some("PUT"));
        assert_eq!(incoming.remote_addr.as_deref(), Some("2001:db8::7"));
        assert_eq!(incoming.user_agent.as_deref(), Some("curl/8"));
        assert_eq!(incoming.body, b"out");
    }
}
