//! A project that has one of everything.

use deadbeat_testkit::receiver::Receiver;
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::Caller;
use super::document::contract;
use crate::harness::{self, Harness};

/// One of everything in the harness's project.
pub struct Things {
    /// Receives the alerts of the channel while the test runs.
    _receiver: Receiver,
    pub channel: Value,
    /// A monitor with the slug `job`. It is down after a failure with a body.
    pub monitor: Value,
    pub schedule: Value,
    pub incidents: Value,
    pub deliveries: Value,
    pub keys: Value,
    /// The event that started a run of the Beat `shop`.
    pub run: Value,
    pub beats: Value,
    pub snoozes: Value,
    pub window: Value,
    /// The person on call has a separate channel, so that the other channel can be deleted.
    pub rotation: Value,
    /// The policy names that separate channel, so that the rotation can be deleted.
    pub policy: Value,
    /// The account of a viewer.
    pub member: Value,
    pub invitation: Value,
}

impl Things {
    pub async fn make(harness: &Harness) -> Self {
        let owner = Caller::new(harness);
        let receiver = Receiver::start().await;
        let settings = json!({"url": receiver.url("/")});
        let channel = owner
            .post(
                "/api/v1/channels",
                &json!({"kind": "webhook", "name": "Hook", "settings": settings}),
            )
            .await;
        let schedule = json!({"kind": "cron", "expression": "0 2 1 1 *"});
        let body = json!({"name": "Job", "slug": "job", "schedule": schedule, "channels": [channel["id"]]});
        let monitor = owner.post("/api/v1/monitors", &body).await;
        harness
            .client
            .post(format!(
                "{}/fail?rid={}",
                monitor["ping_url"].as_str().unwrap(),
                Uuid::new_v4()
            ))
            .body("x")
            .send()
            .await
            .unwrap();
        receiver.wait_for(1, harness::LIMIT).await;
        let settled = |seen: &Value| seen["deliveries"][0]["status"] == "sent";
        let deliveries = harness.wait_for("/api/v1/deliveries", settled).await;
        let incidents = owner.get("/api/v1/incidents").await;
        let keys = owner.get("/api/v1/api-keys").await;
        let run = json!({"id": Uuid::new_v4(), "type": "run_started", "at": "2026-03-02T01:00:00Z", "beat": "shop", "entry": null,
            "run_id": Uuid::new_v4(), "task": "shop.pay", "task_id": "pay-1", "worker": "celery@w1"});
        Caller::with_key(harness, &harness.ping_key)
            .post(
                "/api/v1/events",
                &json!({"sent_at": "2026-03-02T01:00:00Z", "events": [run]}),
            )
            .await;
        let examples =
            "/paths/~1api~1v1~1events/post/requestBody/content/application~1json/examples/worker/value";
        Caller::with_key(harness, &harness.ping_key)
            .post("/api/v1/events", &contract().part(examples).clone())
            .await;
        for (path, list) in [("workers", 1), ("queues", 2), ("brokers", 1)] {
            let seen = owner.get(&format!("/api/v1/{path}")).await;
            assert_eq!(seen[path].as_array().map(Vec::len), Some(list), "{seen}");
        }
        let alive = json!({"id": Uuid::new_v4(), "type": "beat_alive", "at": "2026-03-02T01:00:00Z", "beat": "shop", "period_seconds": 15,
            "grace_seconds": 60});
        Caller::with_key(harness, &harness.ping_key)
            .post(
                "/api/v1/events",
                &json!({"sent_at": "2026-03-02T01:00:00Z", "events": [alive]}),
            )
            .await;
        let beats = owner.get("/api/v1/beats").await;
        let snooze = format!("{}/ping/{}/snooze/1h?tag=nobody", harness.url, harness.ping_key);
        harness.client.get(snooze).send().await.unwrap();
        let snoozes = owner.get("/api/v1/snoozes").await;
        let window =
            json!({"name": "Move", "starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-02T00:00:00Z"});
        let window = owner.post("/api/v1/maintenance-windows", &window).await;
        let phone = json!({"kind": "webhook", "name": "Phone", "settings": settings});
        let phone = owner.post("/api/v1/channels", &phone).await["id"].clone();
        let rotation = json!({
            "name": "Primary", "timezone": "Europe/Berlin", "people": [{"name": "Ann", "channels": [phone]}],
            "layers": [{"people": ["Ann"], "handover": "weekly", "at": "09:00", "starts_on": "2026-03-02"}],
        });
        let rotation = owner.post("/api/v1/rotations", &rotation).await;
        let steps = json!([{"delay_seconds": 0, "targets": [{"kind": "channel", "id": phone}]}]);
        let policy = json!({"name": "Payments", "match": {"tags": ["payments"]}, "steps": steps});
        let policy = owner.post("/api/v1/escalation-policies", &policy).await;
        let member = Self::member(harness).await;
        let invitation = owner
            .post("/api/v1/invitations", &json!({"role": "viewer"}))
            .await;
        Self {
            _receiver: receiver,
            channel,
            monitor,
            schedule,
            incidents,
            deliveries,
            keys,
            run,
            beats,
            snoozes,
            window,
            rotation,
            policy,
            member,
            invitation,
        }
    }

    /// Makes an account, which is a viewer of the project.
    pub async fn member(harness: &Harness) -> Value {
        let services = harness.app.services();
        let account =
            deadbeat_services::people::account::create(services, "vi@example.org", "a long password")
                .await
                .unwrap();
        sqlx::query(
            "INSERT INTO member (project_id, account_id, role, created_at) SELECT id, $1, 'viewer', now() FROM project ORDER BY created_at, id LIMIT 1",
        )
        .bind(account.id.0)
        .execute(&harness.pool)
        .await
        .unwrap();
        json!({"id": account.id})
    }

    /// Returns the id of the thing that an API path with this noun (`monitors`, `channels`, …) is about.
    pub fn id(&self, noun: &str) -> &str {
        let id = match noun {
            "beats" => &self.beats["beats"][0]["id"],
            "monitors" => &self.monitor["id"],
            "channels" => &self.channel["id"],
            "incidents" => &self.incidents["incidents"][0]["id"],
            "deliveries" => &self.deliveries["deliveries"][0]["id"],
            "api-keys" => &self.keys["api_keys"][0]["id"],
            "runs" => &self.run["run_id"],
            "snoozes" => &self.snoozes["snoozes"][0]["id"],
            "maintenance-windows" => &self.window["id"],
            "rotations" => &self.rotation["id"],
            "escalation-policies" => &self.policy["id"],
            "members" => &self.member["id"],
            "invitations" => &self.invitation["id"],
            other => panic!("there is nothing of {other}"),
        };
        id.as_str().unwrap()
    }

    /// Returns an API path with the ids of these things.
    pub fn path(&self, template: &str) -> String {
        if !template.contains("{id}") {
            return template.to_owned();
        }
        let noun = template.trim_start_matches("/api/v1").split('/').nth(1).unwrap();
        template.replace("{id}", self.id(noun)).replace("{n}", "1")
    }
}
