//! Alerts that wait: delays, quiet hours, rules, snoozes, mutes and windows. Each row of the table in docs/alerting.md has one test, over a
//! real database with a stopped clock. Deliveries are claimed and settled as the delivery loop does.

#![allow(
    clippy::unwrap_used,
    reason = "in tests a panic is the report; the lint spares only the test functions themselves"
)]

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::ids::{ChannelId, IncidentId};
use deadbeat_services::alert::channel;
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::monitor::Change;
use deadbeat_store::alert::claim::{self, Claimed, START, Share};
use deadbeat_store::alert::delivery::{Settle, settle};
use deadbeat_store::incident::{Filter, Incident, list};
use deadbeat_store::monitor::Monitor;
use deadbeat_store::page::Page;
use serde_json::{Value, json};

use crate::setup::World;

mod rules;
mod snoozes;
mod windows;

/// A delivery as (alert, status, cancel_reason).
pub type Row = (String, String, Option<String>);

impl World {
    /// A monitor that reports once a month: no test here lasts long enough for it to miss a report.
    pub async fn job(&self, name: &str) -> Monitor {
        self.job_with(name, Change::default()).await
    }

    pub async fn job_with(&self, name: &str, change: Change) -> Monitor {
        let change = Change {
            schedule: Some(json!({"kind": "interval", "seconds": 2_592_000})),
            ..change
        };
        self.monitor_with(name, change).await
    }

    /// A channel with rules.
    pub async fn channel_with(&self, name: &str, rules: Value) -> ChannelId {
        let id = self.channel(name).await;
        self.set_rules(id, rules).await;
        id
    }

    pub async fn set_rules(&self, id: ChannelId, rules: Value) {
        let rules = rules.as_object().unwrap();
        channel::update_with(&self.services, &self.access, id, None, None, rules)
            .await
            .unwrap();
    }

    /// Leases what is due now.
    pub async fn claim(&self) -> Vec<Claimed> {
        let now = self.now();
        let due = claim::due_channels(&self.services.reader(), now, START, &[], 1_000, 1_000)
            .await
            .unwrap();
        let shares: Vec<Share> = due
            .channels
            .iter()
            .map(|channel| Share {
                project_id: channel.project_id,
                channel_id: channel.channel_id,
                count: 5_000,
            })
            .collect();
        let mut tx = self.store().begin().await.unwrap();
        let claimed = claim::claim(&mut tx, now, now + TimeDelta::seconds(60), &shares)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        claimed
    }

    pub async fn settle(&self, claimed: &Claimed) {
        let mut tx = self.store().begin().await.unwrap();
        let row = claimed;
        settle(
            &mut tx,
            row.project_id,
            row.id,
            row.lease,
            Settle::Sent,
            self.now(),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// Sends all deliveries that are due now. Returns which alerts went to which channel, in order.
    pub async fn send_due(&self) -> Vec<(ChannelId, &'static str)> {
        let mut sent = Vec::new();
        loop {
            let mut claimed = self.claim().await;
            if claimed.is_empty() {
                return sent;
            }
            claimed.sort_by_key(|row| (row.created_at, row.id));
            for row in &claimed {
                self.settle(row).await;
                sent.push((row.channel_id, row.alert.as_str()));
            }
        }
    }

    /// As [`World::send_due`], but without the channels.
    pub async fn alerts_sent(&self) -> Vec<&'static str> {
        self.send_due()
            .await
            .into_iter()
            .map(|(_, alert)| alert)
            .collect()
    }

    /// Moves the clock, sweeps, and sends.
    pub async fn alerts_sent_after(&self, minutes: i64) -> Vec<&'static str> {
        self.sweep_after(minutes * 60).await;
        self.alerts_sent().await
    }

    /// Moves the clock, sweeps, and sends.
    pub async fn received_after_seconds(&self, seconds: i64) -> Vec<&'static str> {
        self.sweep_after(seconds).await;
        self.alerts_sent().await
    }

    /// All deliveries of the project, oldest first.
    pub async fn outbox(&self) -> Vec<Row> {
        sqlx::query_as(
            "SELECT alert, status, cancel_reason FROM delivery WHERE project_id = $1 ORDER BY sequence",
        )
        .bind(self.project.0)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    pub async fn newest_incident(&self) -> Incident {
        let page = Page {
            after: None,
            limit: 1,
        };
        let found = list(&self.services.reader(), self.project, &Filter::default(), page).await;
        found.unwrap().remove(0)
    }

    pub async fn acknowledge(&self, id: IncidentId) {
        acknowledgement::acknowledge(&self.services, &self.access, id)
            .await
            .unwrap();
    }

    pub fn set_clock(&self, text: &str) {
        self.clock.set(at(text));
    }
}

pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub fn row(alert: &str, status: &str, reason: Option<&str>) -> Row {
    (alert.to_owned(), status.to_owned(), reason.map(str::to_owned))
}

/// Quiet hours from 22:00 to 07:00 in Berlin.
pub fn nights() -> Value {
    json!({"quiet_hours": {"timezone": "Europe/Berlin", "times": [{"from": "22:00", "to": "07:00"}]}})
}
