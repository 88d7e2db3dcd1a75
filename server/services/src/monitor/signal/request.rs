//! A ping that came as a request, whatever dialect the request speaks.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use deadbeat_domain::monitor::ping::{PingKind, Signal, Source};
use deadbeat_domain::monitor::run::RunDetail;
use uuid::Uuid;

use super::incoming::{Address, Incoming};

/// What a dialect reads from a request: which monitor is meant, and what is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which monitor.
    pub address: Address,
    /// What is reported.
    pub kind: PingKind,
    /// 0–255, when the client sent one.
    pub exit_code: Option<u8>,
    /// The client's run id.
    pub run_id: Option<Uuid>,
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The HTTP method.
    pub method: String,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's name for itself.
    pub user_agent: Option<String>,
}

impl Incoming {
    /// The signal that a request is. `received_at` is when the request entered the server: take it before anything that can be slow.
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
                // A request carries no clock of its client's.
                occurred_at: received_at,
                run_id: report.run_id,
                exit_code: report.exit_code,
                duration: None,
                source: Source::Http,
                detail: RunDetail::default(),
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
            detail: RunDetail::default(),
            is_replayed: false,
        };
        assert_eq!(incoming.signal, signal);
        assert_eq!(incoming.method.as_deref(), Some("PUT"));
        assert_eq!(incoming.remote_addr.as_deref(), Some("2001:db8::7"));
        assert_eq!(incoming.user_agent.as_deref(), Some("curl/8"));
        assert_eq!(incoming.body, b"out");
    }
}
