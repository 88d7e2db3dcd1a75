//! A real server on a free port. Its database is in the cluster that `DATABASE_URL` names (`scripts/pg` starts one).

use std::net::TcpListener;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use deadbeat_app::clock::SystemClock;
use deadbeat_app::{App, Parts};
use deadbeat_domain::time::Clock;
use deadbeat_services::alert::delivery::outbound::OutboundSettings;
use deadbeat_services::alert::delivery::senders::Senders;
use deadbeat_services::alert::delivery::senders::email::SmtpSettings;
use deadbeat_services::people::setup::first_start;
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_testkit::StoppedClock;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// A running server, with keys and a first account.
pub struct Harness {
    /// The server's URL: `http://127.0.0.1:<port>`.
    pub url: String,
    /// The mail address of the first account.
    pub email: String,
    /// The password of the first account.
    pub password: String,
    /// A key that may manage.
    pub api_key: String,
    /// A key that may read.
    pub read_key: String,
    /// A key that may signal.
    pub ping_key: String,
    /// A client that follows no redirects and keeps no cookies.
    pub client: Client,
    /// Direct access to the server's database.
    pub pool: PgPool,
    pub app: App,
    pub database_url: String,
    database: String,
}

/// The time for which a test waits for an event before it fails.
pub const LIMIT: Duration = Duration::from_secs(20);

fn cluster_url() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the test's own setting, not the server's"
    )]
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL names a PostgreSQL for tests: run `make test` or `scripts/pg cargo test`")
}

fn with_database(url: &str, database: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_path(&format!("/{database}"));
    url.to_string()
}

/// A client like the one of a cron job: it follows no redirects and keeps no cookies.
pub fn client() -> Client {
    // A second test of this process finds the provider installed, which is an error to ignore.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .no_proxy()
        .build()
        .unwrap()
}

/// Makes a database for one test.
pub async fn make_database() -> (String, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "it_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let admin = PgPoolOptions::new()
        .max_connections(1)
        .connect(&cluster_url())
        .await
        .unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&admin).await.unwrap();
    admin.close().await;
    (with_database(&cluster_url(), &name), name)
}

/// Senders of alerts that may also reach this machine.
pub fn senders(smtp: Option<SmtpSettings>) -> Senders {
    let outbound = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: true,
        user_agent: "Deadbeat/test".to_owned(),
    };
    Senders::standard(&outbound, smtp.as_ref()).unwrap()
}

/// The keyring of every server in these tests.
pub fn keyring() -> Keyring {
    Keyring::load(&"07".repeat(32), None).unwrap()
}

/// Starts a server.
pub async fn start() -> Harness {
    start_with(None).await
}

/// Starts a server with other settings.
pub async fn start_changed(change: impl FnOnce(Parts) -> Parts) -> Harness {
    let unconfirmed = |parts| Parts {
        confirm_mail: false,
        ..parts
    };
    start_parts(senders(None), |parts| change(unconfirmed(parts))).await
}

/// Starts a server that sends mail to any address.
pub async fn start_with(smtp: Option<SmtpSettings>) -> Harness {
    start_by(Arc::new(SystemClock), smtp, false).await
}

/// Starts a server that sends mail only to addresses whose owners confirmed.
pub async fn start_confirming(smtp: Option<SmtpSettings>) -> Harness {
    start_by(Arc::new(SystemClock), smtp, true).await
}

/// Starts a server with a mail server and other settings.
pub async fn start_mailing(smtp: SmtpSettings, change: impl FnOnce(Parts) -> Parts) -> Harness {
    start_parts(senders(Some(smtp)), change).await
}

/// Starts a server whose clock stands still at that instant until the test moves it. The evaluator uses this clock, too.
pub async fn start_at(now: &str) -> (Harness, StoppedClock) {
    let clock = StoppedClock::at(now.parse().unwrap());
    let harness = start_by(Arc::new(clock.clone()), None, false).await;
    // Another process seems to listen all the time. Otherwise, moving the clock would be a blind spell, in which nobody is judged.
    sqlx::query("INSERT INTO listener (id, stamped_at, spooled) VALUES (gen_random_uuid(), '9999-01-01T00:00:00Z', 0)")
        .execute(&harness.pool)
        .await
        .unwrap();
    // The server itself may stamp that it listens before it sweeps. Its own clients must not cause a blind spell either.
    sqlx::query("CREATE RULE no_spell AS ON INSERT TO blind_spell DO INSTEAD NOTHING")
        .execute(&harness.pool)
        .await
        .unwrap();
    (harness, clock)
}

/// Starts a server that uses this clock.
pub async fn start_by(clock: Arc<dyn Clock>, smtp: Option<SmtpSettings>, confirm_mail: bool) -> Harness {
    start_parts(senders(smtp), |parts| Parts {
        clock,
        confirm_mail,
        ..parts
    })
    .await
}

async fn start_parts(senders: Senders, change: impl FnOnce(Parts) -> Parts) -> Harness {
    let (database_url, database) = make_database().await;
    let client = client();
    let pool = PgPoolOptions::new()
        .max_connections(3)
        .connect_with(PgConnectOptions::from_str(&database_url).unwrap())
        .await
        .unwrap();
    deadbeat_store::MIGRATOR.run(&pool).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let parts = Parts {
        keyring: keyring(),
        ..Parts::new(listener, database_url.clone(), url.clone(), senders)
    };
    let app = App::start(change(parts)).unwrap();
    let first = first_start(app.services(), "admin@localhost")
        .await
        .unwrap()
        .unwrap();
    Harness {
        url,
        email: first.email,
        password: first.password,
        api_key: first.created.api_key,
        read_key: first.created.read_key,
        ping_key: first.created.ping_key,
        client,
        pool,
        app,
        database_url,
        database,
    }
}

impl Harness {
    /// Makes a request with the API key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.api_key)
    }

    /// Sends JSON with the API key. Returns the status and the JSON of the answer, or null without a body.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self.request(method, path).json(body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (
            status,
            if text.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&text).unwrap()
            },
        )
    }

    /// Reads a path with the API key.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "GET {path}");
        answer.json().await.unwrap()
    }

    /// Creates a monitor.
    pub async fn monitor(&self, body: Value) -> Value {
        let (status, monitor) = self.send(Method::POST, "/api/v1/monitors", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{monitor}");
        monitor
    }

    /// Reads until `wanted` holds. After [`LIMIT`], fails with the last answer.
    pub async fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let seen = self.get(path).await;
            if wanted(&seen) {
                return seen;
            }
            assert!(
                start.elapsed() < LIMIT,
                "GET {path} did not get the expected answer; last seen: {seen:#}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the server reports that it is ready.
    pub async fn ready(&self) {
        let start = Instant::now();
        while self
            .request(Method::GET, "/readyz")
            .send()
            .await
            .unwrap()
            .status()
            != StatusCode::OK
        {
            assert!(start.elapsed() < LIMIT, "the server does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the evaluator has judged all that is overdue by a stopped clock.
    pub async fn swept(&self, clock: &StoppedClock) {
        // The first sweep that ends now may have begun before the clock moved. The second one has not.
        for _ in 0..2 {
            let now = clock.advance(TimeDelta::microseconds(1));
            let start = Instant::now();
            while self.app.services().selfwatch().last_sweep_at() != Some(now) {
                assert!(start.elapsed() < LIMIT, "no sweep at {now}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Makes another project in the same deployment. Returns (API key, ping key).
    pub async fn other_project(&self) -> (String, String) {
        let created = deadbeat_services::people::project::create(self.app.services(), "Other", None)
            .await
            .unwrap();
        (created.api_key, created.ping_key)
    }

    /// Stops the server and removes its database.
    pub async fn stop(self) {
        self.app.stop().await;
        self.pool.close().await;
        let admin = PgPoolOptions::new()
            .max_connections(1)
            .connect(&cluster_url())
            .await
            .unwrap();
        let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.database));
        sqlx::query(drop).execute(&admin).await.unwrap();
    }
}
