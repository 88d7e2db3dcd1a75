//! No secret of a channel appears in clear text anywhere, even after an upgrade.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_domain::monitor::ping::PingKind::Fail;
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::{KINDS, Kind, Senders};
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings};
use deadbeat_services::alert::sealing::keeper::{Keeper, Passed, make_first_key};
use deadbeat_services::alert::sealing::rotation::{self, RotationError};
use deadbeat_services::alert::{channel, push_key, sealing};
use deadbeat_services::secret::keyring::{FILE, Keyring, MissingKey};
use deadbeat_services::{ServiceError, Services};
use deadbeat_testkit::{Receiver, Reply};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::{World, keyring};

mod keys;
mod rotating;

/// A part of every secret in these tests.
const MARK: &str = "S3CRETmarkS3CRET";

fn other_ring() -> Keyring {
    Keyring::load(&"08".repeat(32), None).unwrap()
}

/// Returns a keyring with both keys. The key of [`other_ring`] seals.
fn both() -> Keyring {
    Keyring::load(&format!("{},{}", "08".repeat(32), "07".repeat(32)), None).unwrap()
}

fn id(ring: &Keyring) -> String {
    ring.first().unwrap().id().to_owned()
}

impl World {
    fn deliverer(&self, ring: Keyring) -> Delivery {
        let outbound = OutboundSettings {
            ports: Vec::new(),
            allow_private_networks: true,
            loopback_only: true,
            user_agent: "Deadbeat/test".to_owned(),
        };
        let (clock, senders) = (
            Arc::new(self.clock.clone()),
            Senders::standard(&outbound, None).unwrap(),
        );
        Delivery::new(
            self.store(),
            clock,
            senders,
            Arc::clone(&self.bell),
            DeliverySettings::default(),
        )
        .with_keyring(ring)
    }

    fn keeper(&self, ring: &Keyring) -> Keeper {
        Keeper::new(self.store(), Arc::new(self.clock.clone()), ring.clone())
    }

    async fn hook(&self, url: &str) -> ChannelId {
        channel::create(
            &self.services,
            &self.access,
            "webhook",
            "Hook",
            &json!({"url": url}),
        )
        .await
        .unwrap()
        .channel
        .id
    }

    async fn opens(&self, ring: &Keyring, project: ProjectId, id: ChannelId) -> Result<String, String> {
        let channel = deadbeat_store::alert::channel::get(&self.services.reader(), project, id)
            .await
            .unwrap()
            .unwrap();
        match sealing::open(ring, &channel) {
            Ok(opened) => Ok(opened.settings.to_json()["url"].as_str().unwrap().to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// Returns everything in the database as text.
    async fn everything(&self) -> String {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND n.nspname = 'public' AND NOT c.relispartition AND c.relname <> '_sqlx_migrations'",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let mut text = String::new();
        for table in tables {
            let sql = format!("SELECT row_to_json(r)::text FROM {table} r");
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            text.push_str(&rows.join("\n"));
        }
        text
    }

    async fn details(&self) -> Vec<Option<String>> {
        sqlx::query_scalar("SELECT detail FROM attempt ORDER BY started_at, number")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn keys(&self) -> Vec<Option<String>> {
        sqlx::query_scalar("SELECT sealed ->> 'key' FROM channel ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Writes a channel as the last release wrote it.
    async fn unseal(&self, id: ChannelId, url: &str) {
        sqlx::query(
            "UPDATE channel SET sealed = NULL, settings = $2, signing_secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' WHERE id = $1",
        )
        .bind(id.0)
        .bind(json!({"url": url}))
        .execute(&self.pool)
        .await
        .unwrap();
    }
}

/// Collects every line of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns example settings from the documentation of a kind. Each secret contains [`MARK`], and each web address points to this machine.
fn marked(kind: &dyn Kind, receiver: &Receiver) -> Value {
    let page = format!(
        "{}/../../docs/channels/{}.md",
        env!("CARGO_MANIFEST_DIR"),
        kind.name()
    );
    let page = std::fs::read_to_string(page).unwrap();
    let block = page
        .split("```json\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut settings = serde_json::from_str::<Value>(block).unwrap()["settings"].clone();
    for (field, value) in settings.as_object_mut().unwrap() {
        let is_secret = kind.secrets().contains(&field.as_str());
        let text = value.as_str().unwrap_or_default();
        if text.starts_with("http") {
            let path = if is_secret {
                format!("/hooks/{MARK}-0123")
            } else {
                String::new()
            };
            *value = json!(receiver.url(&path));
        } else if field == "auth" {
            // A browser's secret is 16 bytes, so there is no room for more than the mark.
            *value = json!(format!("{MARK}01234A"));
        } else if is_secret {
            *value = json!(format!("{text}-{MARK}-0123"));
        }
    }
    settings
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn no_secret_of_any_kind_is_in_the_database_or_the_log(pool: PgPool) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _captured = tracing::subscriber::set_default(subscriber);
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(410).repeating()).await;
    let witness = Receiver::start().await;
    world.hook(&witness.url("/witness")).await;
    let delivery = world.deliverer(keyring());
    push_key::public(&world.services, &world.access).await.unwrap();

    let mut secrets = Vec::new();
    for kind in KINDS {
        // A project may send few tests in a minute.
        world.clock.advance(TimeDelta::minutes(1));
        let settings = marked(*kind, &receiver);
        let written = channel::create(&world.services, &world.access, kind.name(), "Sealed", &settings)
            .await
            .unwrap();
        secrets.extend(written.signing_secret.map(|secret| secret.0));
        let id = written.channel.id;
        let sealed = written.channel.sealed.clone().unwrap();
        // A kind may offer several ways to send, each with a secret of its own.
        let given = kind
            .secrets()
            .iter()
            .filter(|field| settings.get(**field).is_some());
        assert!(
            kind.secrets().is_empty() || given.clone().count() > 0,
            "{}",
            kind.name()
        );
        for field in given {
            assert!(
                sealed.values.contains_key(&format!("settings.{field}")),
                "{}",
                kind.name()
            );
        }
        // The first refusal is temporary, and the second one is permanent. The other channel then gets a notice.
        receiver.then(Reply::status(500).repeating()).then(Reply::close());
        for _ in 0..3 {
            channel::send_test(&world.services, &world.access, id)
                .await
                .unwrap();
            delivery.deliver_once().await.unwrap();
        }
        delivery.deliver_once().await.unwrap();
        let changed = channel::update(
            &world.services,
            &world.access,
            id,
            Some("Renamed"),
            Some(&settings),
        )
        .await
        .unwrap();
        assert!(changed.signing_secret.is_none());
        for text in [
            format!("{written:?} {changed:?}", written = written.channel),
            sealing::shown(&changed.channel.settings).to_string(),
        ] {
            assert!(!text.contains(MARK), "{}: {text}", kind.name());
        }
    }

    let (database, log) = (world.everything().await, log.text());
    assert!(
        database.contains("Cannot POST …") && database.contains("channel.disabled"),
        "{database}"
    );
    assert!(
        log.contains("an alert was given up undelivered"),
        "the log was captured"
    );
    assert!(!secrets.is_empty());
    secrets.push(MARK.to_owned());
    for secret in secrets {
        for text in [&database, &log] {
            let at = text.find(&secret).map(|at| &text[at.saturating_sub(300)..at]);
            assert!(at.is_none(), "a secret follows on {at:?}");
        }
    }
    let messages: Vec<String> = witness.requests().iter().map(|request| request.text()).collect();
    assert!(
        !messages.is_empty() && !messages.join("").contains(MARK),
        "{messages:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_sealed_row_that_is_copied_to_another_project_does_not_open(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    let receiver = Receiver::start().await;
    let (victim, neighbour, thief) = (
        world.hook(&receiver.url(&format!("/{MARK}/one"))).await,
        world.hook(&receiver.url(&format!("/{MARK}/two"))).await,
        other.hook(&receiver.url("/three/three")).await,
    );

    // The sealed settings are copied to a channel of another project, and swapped between two channels of one project.
    sqlx::query("UPDATE channel SET settings = v.settings, sealed = v.sealed FROM channel v WHERE v.id = $1 AND channel.id = $2")
        .bind(victim.0)
        .bind(thief.0)
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE channel SET sealed = v.sealed FROM channel v WHERE (v.id, channel.id) IN (($1, $2), ($2, $1))")
        .bind(victim.0)
        .bind(neighbour.0)
        .execute(&world.pool)
        .await
        .unwrap();

    for (project, id) in [
        (other.project, thief),
        (world.project, victim),
        (world.project, neighbour),
    ] {
        let fault = world.opens(&keyring(), project, id).await.unwrap_err();
        assert!(fault.contains("moved from another channel"), "{fault}");
    }
    channel::send_test(&other.services, &other.access, thief)
        .await
        .unwrap();
    other.deliverer(keyring()).deliver_once().await.unwrap();
    assert_eq!(receiver.requests().len(), 0);
    let details = other.details().await;
    assert!(
        details[0]
            .as_ref()
            .unwrap()
            .contains("moved from another channel"),
        "{details:?}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn rows_of_the_last_release_are_delivered_and_sealed_in_batches(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let url = receiver.url(&format!("/hooks/{MARK}"));
    let first = world.hook(&url).await;
    world.unseal(first, &url).await;
    sqlx::query(
        "INSERT INTO channel (id, project_id, kind, name, settings, signing_secret, created_at, updated_at)
        SELECT gen_random_uuid(), project_id, kind, name, settings, signing_secret, created_at, updated_at
        FROM channel, generate_series(1, 450)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    // Only the server of a later version knows which settings of its kind are secret.
    sqlx::query(
        "INSERT INTO channel (id, project_id, kind, name, settings, created_at, updated_at)
        SELECT gen_random_uuid(), project_id, 'pigeon', name, '{\"loft\": 1}', created_at, updated_at FROM channel LIMIT 1",
    )
    .execute(&world.pool)
    .await
    .unwrap();

    channel::send_test(&world.services, &world.access, first)
        .await
        .unwrap();
    world.deliverer(keyring()).deliver_once().await.unwrap();
    // Two processes work at once. A later pass follows, as there is one each minute.
    let (one, other) = (world.keeper(&keyring()), world.keeper(&keyring()));
    let (one, other) = tokio::join!(one.pass_once(), other.pass_once());
    let again = world.keeper(&keyring()).pass_once().await.unwrap();

    assert_eq!(receiver.requests()[0].path, format!("/hooks/{MARK}"));
    // Each process skips the rows that the other one has locked.
    assert_eq!(one.unwrap().sealed + other.unwrap().sealed + again.sealed, 451);
    assert_eq!(
        world.keeper(&keyring()).pass_once().await.unwrap(),
        Passed { sealed: 0, left: 1 }
    );
    assert!(!world.everything().await.contains(MARK));
    assert_eq!(world.opens(&keyring(), world.project, first).await, Ok(url));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_old_code_does_to_a_sealed_channel_breaks_nothing(pool: PgPool) {
    let world = World::new(pool).await;
    let hook = world.hook("https://example.org/hooks/0123456789").await;
    let mail = json!({"to": "ops@example.org"});
    let mail = channel::create(&world.services, &world.access, "email", "Ops", &mail)
        .await
        .unwrap()
        .channel
        .id;

    // The last release changes a webhook's URL. The database refuses, because the change would lose the signing secret.
    let changed =
        sqlx::query("UPDATE channel SET settings = '{\"url\": \"https://example.org/\"}' WHERE id = $1")
            .bind(hook.0)
            .execute(&world.pool)
            .await;
    // The last release asks for a confirmation again, and finds no secret.
    sqlx::query("UPDATE channel SET confirm_secret = 'old-code-old-code' WHERE id = $1")
        .bind(mail.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let passed = world.keeper(&keyring()).pass_once().await.unwrap();

    let constraint = changed.unwrap_err();
    assert!(
        constraint.to_string().contains("channel_stays_sealed"),
        "{constraint}"
    );
    assert_eq!(passed, Passed { sealed: 1, left: 0 });
    assert!(!world.everything().await.contains("old-code-old-code"));
    let stored = deadbeat_store::alert::channel::get(&world.services.reader(), world.project, mail)
        .await
        .unwrap()
        .unwrap();
    let opened = sealing::open(&keyring(), &stored).ok().unwrap();
    assert_eq!(
        opened.confirm_secret.as_deref(),
        Some("old-code-old-code"),
        "the newer secret"
    );
}
