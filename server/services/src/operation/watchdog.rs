//! Reports to another monitoring service by a ping URL, which may belong to another Deadbeat. It reports only while everything here works.
//!
//! A process that hangs cannot report its own fault, but the other service notices the silence.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use deadbeat_domain::judge::blind_spell::is_blind;
use deadbeat_domain::time::Clock;
use deadbeat_store::Reader;
use reqwest::header::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::alert::delivery::outbound::Outbound;
use crate::operation::duty::Duty;
use crate::operation::selfwatch::Selfwatch;

/// The time between two reports.
const PERIOD: Duration = Duration::from_secs(30);
/// A deadline or a delivery that has waited for longer than this shows that the work is not done, whatever the loops report.
const BEHIND: TimeDelta = TimeDelta::minutes(2);

/// The loop that reports to the other service.
pub struct Watchdog {
    url: String,
    outbound: Outbound,
    selfwatch: Selfwatch,
    reader: Reader,
    clock: Arc<dyn Clock>,
    duty: Duty,
}

impl Watchdog {
    /// Makes the loop.
    #[must_use]
    pub fn new(
        url: String,
        outbound: Outbound,
        selfwatch: Selfwatch,
        reader: Reader,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            url,
            outbound,
            selfwatch,
            reader,
            clock,
            duty: Duty::new("watchdog"),
        }
    }

    /// Returns the duty of the loop.
    #[must_use]
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Reports every half minute until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            // The log must not contain the URL, which is a secret.
            let reported = self.report_once().await;
            self.duty.ended(&reported);
            match reported {
                Ok(()) => {}
                Err(why) => tracing::warn!(why, "no report was sent to the other monitoring service"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Reports once.
    ///
    /// # Errors
    /// Why there was no report: a part of this server does not work, or the other service refused the report.
    pub async fn report_once(&self) -> Result<(), String> {
        let now = self.clock.now();
        let readiness = self.selfwatch.readiness(&self.reader, now).await;
        if !readiness.is_ready() {
            return Err(format!(
                "not everything works: database {}, evaluator {:?}, delivery {:?}, failed loops {:?}",
                readiness.database, readiness.evaluator, readiness.delivery, readiness.failed_loops
            ));
        }
        let Some(backlog) = self.selfwatch.backlog(&self.reader, now).await else {
            return Err("the backlog cannot be read".to_owned());
        };
        if backlog.oldest_check.is_some_and(|at| now - at > BEHIND) {
            return Err("the evaluator is behind".to_owned());
        }
        if backlog.overdue_delivery.is_some_and(|at| now - at > BEHIND) {
            return Err("the delivery loop is behind".to_owned());
        }
        // While no process listens, no deadline is judged, however well the loops run.
        if is_blind(readiness.pulse.and_then(|pulse| pulse.reception.last_stamp), now) {
            return Err("no process listens".to_owned());
        }
        if !readiness.has_judged(now) {
            return Err("no process sweeps".to_owned());
        }
        match self.outbound.post(&self.url, HeaderMap::new(), Vec::new()).await {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(format!("the other monitoring service answered {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }
    }
}
