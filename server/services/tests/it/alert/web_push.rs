//! Web Push from the subscription to the browser, and the key that all servers of a database share.
//!
//! The browser of these tests makes its own keys, and decrypts as RFC 8291 says.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::monitor::ping::PingKind::{Fail, Success};
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::Senders;
use deadbeat_services::alert::delivery::{Delivery, DeliverySettings};
use deadbeat_services::alert::sealing::keeper;
use deadbeat_services::alert::sealing::rotation::{self, RotationError};
use deadbeat_services::alert::{channel, push_key};
use deadbeat_services::secret::keyring::{Keyring, MissingKey};
use deadbeat_services::{ServiceError, Site};
use deadbeat_testkit::receiver::Request;
use deadbeat_testkit::{Receiver, Reply};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{self, ECDSA_P256_SHA256_FIXED};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::{World, keyring};

/// A subscription's keys. ring lets a private key agree once, so this browser reads one message.
struct Browser {
    private: EphemeralPrivateKey,
    public: Vec<u8>,
    auth: [u8; 16],
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF (RFC 5869), the second step.
fn expand(prk: &Prk, info: &[u8], length: usize) -> Vec<u8> {
    let mut key = vec![0; length];
    prk.expand(&[info], Bytes(length))
        .unwrap()
        .fill(&mut key)
        .unwrap();
    key
}

impl Browser {
    fn new() -> Self {
        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &random).unwrap();
        let mut auth = [0; 16];
        random.fill(&mut auth).unwrap();
        Self {
            public: private.compute_public_key().unwrap().as_ref().to_vec(),
            private,
            auth,
        }
    }

    fn subscription(&self, endpoint: &str) -> Value {
        json!({
            "endpoint": endpoint,
            "p256dh": URL_SAFE_NO_PAD.encode(&self.public),
            "auth": URL_SAFE_NO_PAD.encode(self.auth),
        })
    }

    /// Decrypts the body of a request, by RFC 8291, 3.4 and RFC 8188, 2.
    fn read(self, body: &[u8]) -> Value {
        let (salt, sender, record) = (&body[..16], &body[21..86], &body[86..]);
        assert_eq!((&body[16..20], body[20]), (&4_096_u32.to_be_bytes()[..], 65));
        let info = [b"WebPush: info\0", &self.public[..], sender].concat();
        let peer = UnparsedPublicKey::new(&ECDH_P256, sender);
        let input = agree_ephemeral(self.private, &peer, |shared| {
            expand(&Salt::new(HKDF_SHA256, &self.auth).extract(shared), &info, 32)
        })
        .unwrap();
        let prk = Salt::new(HKDF_SHA256, salt).extract(&input);
        let key = expand(&prk, b"Content-Encoding: aes128gcm\0", 16);
        let nonce = expand(&prk, b"Content-Encoding: nonce\0", 12);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut record = record.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let text = key.open_in_place(nonce, Aad::empty(), &mut record).unwrap();
        let (delimiter, text) = text.split_last().unwrap();
        assert_eq!(*delimiter, 2, "the last record");
        serde_json::from_slice(text).unwrap()
    }
}

/// Verifies the token of a request with this public key (RFC 8292). Returns its claims.
fn claims(request: &Request, public_key: &str) -> Value {
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header = request.header("authorization").unwrap();
    let token = header
        .strip_prefix("vapid t=")
        .and_then(|rest| rest.strip_suffix(&format!(", k={public_key}")))
        .unwrap();
    let (signed, proof) = token.rsplit_once('.').unwrap();
    signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decoded(public_key))
        .verify(signed.as_bytes(), &decoded(proof))
        .unwrap();
    serde_json::from_slice(&decoded(signed.split('.').nth(1).unwrap())).unwrap()
}

fn deliverer(world: &World, ring: Keyring) -> Delivery {
    let outbound = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: true,
        user_agent: "Deadbeat/test".to_owned(),
    };
    let senders = Senders::standard(&outbound, None).unwrap();
    let (clock, bell) = (Arc::new(world.clock.clone()), Arc::clone(&world.bell));
    Delivery::new(world.store(), clock, senders, bell, DeliverySettings::default())
        .with_keyring(ring)
        .with_links_to(Site {
            url: "https://deadbeat.test".to_owned(),
        })
}

fn new_ring() -> Keyring {
    Keyring::load(&"08".repeat(32), None).unwrap()
}

fn both() -> Keyring {
    Keyring::load(&format!("{},{}", "08".repeat(32), "07".repeat(32)), None).unwrap()
}

async fn public(world: &World) -> String {
    push_key::public(&world.services, &world.access).await.unwrap()
}

async fn subscribe(world: &World, settings: &Value) -> ChannelId {
    channel::create(&world.services, &world.access, "web_push", "Phone", settings)
        .await
        .unwrap()
        .channel
        .id
}

/// Returns the reasons and details of all attempts, oldest first.
async fn attempts(world: &World) -> Vec<(Option<String>, Option<String>)> {
    sqlx::query_as("SELECT reason, detail FROM attempt ORDER BY started_at, number")
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_incident_reaches_the_browser_that_subscribed(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(201)).await;
    let public_key = public(&world).await;
    let browser = Browser::new();
    subscribe(&world, &browser.subscription(&receiver.url("/push/one"))).await;
    let monitor = world.monitor("nightly").await;
    let delivery = deliverer(&world, keyring());

    world.ping(&monitor, Fail).await;
    delivery.deliver_once().await.unwrap();
    world.ping(&monitor, Success).await;
    delivery.deliver_once().await.unwrap();

    let requests = receiver.requests();
    let [opened, resolved] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(opened.path, "/push/one");
    assert_eq!(opened.header("topic"), resolved.header("topic"));
    assert_eq!(
        (opened.header("urgency"), resolved.header("urgency")),
        (Some("high"), Some("normal"))
    );
    assert_ne!(opened.body, resolved.body);
    assert_eq!(
        claims(opened, &public_key),
        json!({
            "aud": receiver.url(""),
            "exp": (world.now() + TimeDelta::hours(2)).timestamp(),
            "sub": "https://deadbeat.test",
        })
    );
    let message = browser.read(&opened.body);
    let incident: uuid::Uuid = sqlx::query_scalar("SELECT id FROM incident")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(message["id"], json!(incident));
    let shown = &message["notification"];
    assert_eq!(shown["title"], "DOWN: nightly (FAILED)");
    assert_eq!(shown["navigate"], "https://deadbeat.test/");
    let acknowledge = shown["actions"][0]["navigate"].as_str().unwrap();
    assert!(
        acknowledge.starts_with(&format!("https://deadbeat.test/acknowledge/{incident}")),
        "{acknowledge}"
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_subscription_that_has_ended_switches_the_channel_off(pool: PgPool) {
    for status in [404, 410] {
        let world = World::new(pool.clone()).await;
        let receiver = Receiver::answering(Reply::status(status).repeating()).await;
        let witness = Receiver::start().await;
        public(&world).await;
        let browser = Browser::new();
        let phone = subscribe(
            &world,
            &browser.subscription(&receiver.url("/push/S3CRETendpoint")),
        )
        .await;
        let hook = json!({"url": witness.url("/")});
        channel::create(&world.services, &world.access, "webhook", "Hook", &hook)
            .await
            .unwrap();

        channel::send_test(&world.services, &world.access, phone)
            .await
            .unwrap();
        let delivery = deliverer(&world, keyring());
        delivery.deliver_once().await.unwrap();
        delivery.deliver_once().await.unwrap();

        let stored = deadbeat_store::alert::channel::get(&world.services.reader(), world.project, phone)
            .await
            .unwrap()
            .unwrap();
        let (_, reason) = stored.disabled.unwrap();
        assert!(reason.contains(&status.to_string()), "{reason}");
        assert!(!reason.contains("S3CRET") && !reason.contains("eyJ"), "{reason}");
        let notice = witness.requests()[0].text();
        assert!(notice.contains("channel.disabled"), "{notice}");
        assert!(!notice.contains("S3CRET"), "{notice}");
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn servers_that_need_the_key_at_once_agree_on_one(pool: PgPool) {
    let world = World::new(pool).await;
    let (another, _stop) = world.another_process();
    let stored = "SELECT count(*) FROM push_key";
    assert_eq!(world.count(stored).await, 0, "nobody needed it yet");

    let (one, two, three) = tokio::join!(
        push_key::public(&world.services, &world.access),
        push_key::public(&another, &world.access),
        push_key::public(&another, &world.access),
    );

    let one = one.unwrap();
    assert_eq!((&two.unwrap(), &three.unwrap()), (&one, &one));
    assert_eq!(public(&world).await, one);
    assert_eq!(world.count(stored).await, 1);
    let row: Value = sqlx::query_scalar("SELECT to_jsonb(push_key) FROM push_key")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    // PKCS #8 of an EC key begins with these bytes, whatever the key.
    let clear = URL_SAFE_NO_PAD.encode([0x30, 0x81, 0x87, 0x02, 0x01, 0x00]);
    assert!(!row.to_string().contains(&clear), "{row}");
    assert_eq!(row["key_id"], json!(keyring().first().unwrap().id()));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn without_a_key_to_seal_with_there_is_no_key_for_push_services(pool: PgPool) {
    let world = World::new(pool).await;
    let services = world.services.clone().with_keyring(Keyring::default());

    let refused = push_key::public(&services, &world.access).await.unwrap_err();
    assert!(matches!(refused, ServiceError::KeyMissing(_)), "{refused:?}");
    assert_eq!(world.count("SELECT count(*) FROM push_key").await, 0);
    public(&world).await;
    // A server without the key still knows the public one.
    assert!(push_key::public(&services, &world.access).await.is_ok());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_alert_waits_while_the_key_is_missing_or_was_never_made(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(201)).await;
    let browser = Browser::new();
    let phone = subscribe(&world, &browser.subscription(&receiver.url("/push"))).await;
    channel::send_test(&world.services, &world.access, phone)
        .await
        .unwrap();
    deliverer(&world, keyring()).deliver_once().await.unwrap();
    let (reason, detail) = attempts(&world).await.remove(0);
    assert_eq!(reason.as_deref(), Some("setup"));
    assert!(detail.unwrap().contains("/api/v1/push-key"));

    // Now the key exists, but it is sealed with a key that this server lacks.
    public(&world).await;
    rotation::rotate(&world.store(), &both(), false, world.now(), |_| {})
        .await
        .unwrap();
    sqlx::query("UPDATE push_key SET key_id = 'aaaaaaaaaaaa'")
        .execute(&world.pool)
        .await
        .unwrap();
    world.advance(3_600);
    deliverer(&world, both()).deliver_once().await.unwrap();
    let (reason, detail) = attempts(&world).await.remove(1);
    assert_eq!(reason.as_deref(), Some("setup"));
    assert!(detail.unwrap().contains("key aaaaaaaaaaaa is missing"));
    assert!(receiver.requests().is_empty());

    // A ciphertext of another key does not open, and nothing panics.
    sqlx::query("UPDATE push_key SET key_id = $1, sealed = repeat('A', 80)")
        .bind(both().first().unwrap().id())
        .execute(&world.pool)
        .await
        .unwrap();
    world.advance(3_600);
    deliverer(&world, both()).deliver_once().await.unwrap();
    let (_, detail) = attempts(&world).await.remove(2);
    assert!(detail.unwrap().contains("damaged"));
    assert!(receiver.requests().is_empty());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_rotation_keeps_the_key_and_seals_it_again(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::answering(Reply::status(201)).await;
    let public_key = public(&world).await;
    let browser = Browser::new();
    let phone = subscribe(&world, &browser.subscription(&receiver.url("/push"))).await;

    rotation::rotate(&world.store(), &both(), false, world.now(), |_| {})
        .await
        .unwrap();
    rotation::rotate(&world.store(), &both(), false, world.now(), |_| {})
        .await
        .unwrap();

    let missing = keeper::missing(&world.store(), &new_ring()).await.unwrap();
    assert_eq!(missing, [], "the new key opens everything");
    assert_eq!(public(&world).await, public_key);
    channel::send_test(&world.services, &world.access, phone)
        .await
        .unwrap();
    deliverer(&world, new_ring()).deliver_once().await.unwrap();
    claims(&receiver.requests()[0], &public_key);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_lost_key_needs_the_operators_consent_and_then_a_new_one_is_made(pool: PgPool) {
    let world = World::new(pool).await;
    let public_key = public(&world).await;
    let lost = keyring().first().unwrap().id().to_owned();
    let rotate = |accepts| {
        let (store, now) = (world.store(), world.now());
        async move { rotation::rotate(&store, &new_ring(), accepts, now, |_| {}).await }
    };

    assert_eq!(
        keeper::missing(&world.store(), &new_ring()).await.unwrap(),
        [MissingKey {
            id: lost.clone(),
            channels: 0
        }]
    );
    let refused = rotate(false).await.unwrap_err();
    assert!(
        matches!(&refused, RotationError::Missing { id, .. } if *id == lost),
        "{refused:?}"
    );
    rotate(true).await.unwrap();

    assert_eq!(world.count("SELECT count(*) FROM push_key").await, 0);
    let services = world.services.clone().with_keyring(new_ring());
    let new = push_key::public(&services, &world.access).await.unwrap();
    assert_ne!(new, public_key);
    assert_eq!(keeper::missing(&world.store(), &new_ring()).await.unwrap(), []);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_endpoint_is_an_address_that_people_enter(pool: PgPool) {
    let world = World::new(pool).await;
    let senders = Senders::standard(
        &OutboundSettings {
            ports: Vec::new(),
            allow_private_networks: false,
            loopback_only: false,
            user_agent: "Deadbeat/test".to_owned(),
        },
        None,
    )
    .unwrap();
    let services = world
        .services
        .clone()
        .with_channel_rules(deadbeat_services::ChannelRules {
            senders: Some(senders),
            confirm_mail: false,
        });
    for endpoint in [
        "https://127.0.0.1/push",
        "https://localhost/push",
        "https://169.254.169.254/latest",
        "https://[::1]/push",
        "https://push.example.net:22/x",
    ] {
        let settings = Browser::new().subscription(endpoint);
        let refused = channel::create(&services, &world.access, "web_push", "Phone", &settings)
            .await
            .unwrap_err();
        let ServiceError::Invalid(faults) = refused else {
            panic!("{endpoint}: {refused:?}")
        };
        assert_eq!(faults[0].pointer, "/settings/endpoint", "{endpoint}");
    }
    assert_eq!(world.count("SELECT count(*) FROM channel").await, 0);
}
