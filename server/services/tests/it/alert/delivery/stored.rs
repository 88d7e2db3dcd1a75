//! This version sends deliveries that another version stored.

use super::*;

impl World {
    /// Writes a delivery with the statement of another version.
    async fn store(&self, channel: ChannelId, alert: &str, payload: &Value) -> DeliveryId {
        let id = DeliveryId::generate();
        sqlx::query(
            "INSERT INTO delivery (id, project_id, channel_id, alert, payload, status, created_at, next_attempt_at)
            VALUES ($1, $2, $3, $4, $5, 'pending', $6, $6)",
        )
        .bind(id.0)
        .bind(self.project.0)
        .bind(channel.0)
        .bind(alert)
        .bind(payload)
        .bind(self.clock.now())
        .execute(&self.pool)
        .await
        .unwrap();
        id
    }
}

/// Returns messages of the version before this one: no `version`, members without a kind, and notices under the alert `test`.
fn of_the_last_version() -> [(&'static str, Value); 2] {
    let project = json!({"id": "0198c0de-0000-7000-8000-000000000002", "name": "Shop"});
    let opened = json!({
        "type": "incident.opened",
        "timestamp": "2026-01-02T02:15:00Z",
        "incident": {
            "id": "0198c0de-0000-7000-8000-000000000001",
            "project": project,
            "subject": {"kind": "beat", "id": "0198c0de-0000-7000-8000-000000000003", "name": "shop"},
            "cause": {"code": "BEAT_DOWN", "summary": "Silent.", "url": "https://deadbeat.test/causes/BEAT_DOWN"},
            "evidence": [{"at": null, "fact": "It was last heard from at 02:00."}],
            "repair": [{"text": "See.", "command": "pgrep -af beat"}],
            "members": [{"id": "0198c0de-0000-7000-8000-000000000004", "name": "nightly-report"}],
            "member_count": 1,
            "opened_at": "2026-01-02T02:15:00Z",
            "resolved_at": null,
            "acknowledged_at": null,
            "url": "https://deadbeat.test/",
        },
        "monitor": null,
    });
    let disabled = json!({
        "type": "channel.disabled",
        "timestamp": "2026-01-02T02:15:00Z",
        "channel": {"id": "0198c0de-0000-7000-8000-000000000005", "name": "pager", "kind": "webhook"},
        "reason": "answered 410",
        "project": project,
        "incident": null,
        "monitor": null,
    });
    [("opened", opened), ("test", disabled)]
}

/// Asserts that `new` contains everything in `old`.
fn assert_contains(new: &Value, old: &Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, old) in old {
                assert_contains(&new[key], old);
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            assert_eq!(new.len(), old.len());
            new.iter()
                .zip(old)
                .for_each(|(new, old)| assert_contains(new, old));
        }
        _ => assert_eq!(new, old),
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_the_last_version_stored_is_sent_with_all_its_fields(pool: PgPool) {
    let world = World::new(pool).await;
    let (receiver, inbox) = (Receiver::start().await, Inbox::start().await);
    let (hook, mail) = (world.webhook(receiver.url("/hook")).await, world.email().await);
    for (alert, payload) in of_the_last_version() {
        world.store(hook, alert, &payload).await;
        world.store(mail, alert, &payload).await;
    }
    let delivery = world.delivery_with(mailing(&inbox), DeliverySettings::default());

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(4));

    let bodies: Vec<Value> = receiver
        .requests()
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    for (_, payload) in of_the_last_version() {
        let body = bodies.iter().find(|body| body["type"] == payload["type"]);
        assert_contains(body.unwrap(), &payload);
        assert_eq!(body.unwrap()["version"], 1);
    }
    let subjects: HashSet<String> = inbox
        .mails()
        .iter()
        .map(|mail| mail.header("Subject").unwrap())
        .collect();
    assert_eq!(
        subjects,
        HashSet::from([
            "[Deadbeat] DOWN: Celery Beat shop (BEAT_DOWN)".to_owned(),
            "[Deadbeat] Channel switched off: pager".to_owned()
        ])
    );
}

/// A later version stored a message of a type that this version does not know, or somebody damaged the row. Deadbeat sends as much as it can.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_message_that_cannot_be_read_is_forwarded_and_not_lost(pool: PgPool) {
    let world = World::new(pool).await;
    let (receiver, inbox) = (Receiver::start().await, Inbox::start().await);
    let (hook, mail) = (world.webhook(receiver.url("/hook")).await, world.email().await);
    let later =
        json!({"version": 9, "type": "incident.silenced", "incident": {"subject": {"name": "backup"}}});
    for payload in [&later, &json!(null), &json!([1])] {
        world.store(hook, "opened", payload).await;
        world.store(mail, "opened", payload).await;
    }
    let delivery = world.delivery_with(mailing(&inbox), DeliverySettings::default());

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(6));

    let bodies: Vec<Value> = receiver
        .requests()
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    assert!(bodies.contains(&later), "{bodies:?}");
    let subjects: HashSet<String> = inbox
        .mails()
        .iter()
        .map(|mail| mail.header("Subject").unwrap())
        .collect();
    assert_eq!(
        subjects,
        HashSet::from([
            "[Deadbeat] DOWN: backup".to_owned(),
            "[Deadbeat] DOWN: a monitor".to_owned()
        ])
    );
}
