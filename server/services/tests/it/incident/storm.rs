//! A storm is one alert that names the monitors that it affects.

use deadbeat_domain::alert::message::Message;
use deadbeat_services::alert::delivery::senders::email::mail;
use serde_json::Value;
use sqlx::PgPool;

use crate::setup::World;

impl World {
    /// Returns the payloads of this alert in the outbox, oldest first.
    async fn payloads(&self, alert: &str) -> Vec<Value> {
        sqlx::query_scalar("SELECT payload FROM delivery WHERE alert = $1 ORDER BY sequence")
            .bind(alert)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_silent_beat_names_fifty_of_its_monitors_and_counts_the_rest(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let names: Vec<String> = (0..73).map(|number| format!("task-{number:02}")).collect();
    let entries: Vec<&str> = names.iter().map(String::as_str).collect();
    world.silent_beat(&entries).await;

    world.sweep_after(3_600).await;
    world.alive().await;

    for alert in ["opened", "reminder", "resolved"] {
        let [payload] = world.payloads(alert).await.try_into().unwrap();
        let members = payload["incident"]["members"].as_array().unwrap();
        assert_eq!(
            (members.len(), &payload["incident"]["member_count"]),
            (50, &73.into()),
            "{alert}"
        );
        let named: Vec<&str> = members
            .iter()
            .map(|member| member["name"].as_str().unwrap())
            .collect();
        assert!(named.iter().all(|name| entries.contains(name)), "{named:?}");
        let mail = mail::render(&Message::read(payload, world.now()));
        assert!(
            mail.text.contains("73 monitors are affected:\n- task-"),
            "{alert}: {}",
            mail.text
        );
        assert!(mail.text.contains("\nand 23 more\n"), "{alert}: {}", mail.text);
        assert_eq!(mail.html.matches("<li>task-").count(), 50, "{alert}");
        assert!(mail.html.contains("73 monitors are affected"), "{alert}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_monitors_own_incident_has_no_members(pool: PgPool) {
    let world = World::new(pool).await;
    world.channel("one").await;
    let monitor = world.monitor("alone").await;
    world
        .ping(&monitor, deadbeat_domain::monitor::ping::PingKind::Fail)
        .await;

    let [payload] = world.payloads("opened").await.try_into().unwrap();

    assert_eq!(payload["incident"]["members"], serde_json::json!([]));
    assert_eq!(payload["incident"]["member_count"], 0);
    let message = Message::read(payload, world.now());
    assert!(!mail::render(&message).text.contains("affected"));
}
