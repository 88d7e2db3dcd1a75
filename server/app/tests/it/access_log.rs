//! The access log and request ids: a real process whose log the tests read, and handlers that panic.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use deadbeat_app::clock::SystemClock;
use deadbeat_testkit::PoisonedClock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::contract::document::{Operation, contract};
use crate::harness::{self, LIMIT};

/// The output of a process so far.
type Text = Arc<Mutex<String>>;

fn collect(from: impl Read + Send + 'static) -> Text {
    let text = Text::default();
    let kept = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    text
}

/// A `deadbeat serve` process with its log.
struct Process {
    child: Child,
    printed: Text,
    log: Text,
    url: String,
    client: Client,
    _data: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let (database_url, _) = harness::make_database().await;
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_deadbeat"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("DEADBEAT_DATABASE_URL", database_url)
            .env("DEADBEAT_DATA_DIR", data.path())
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (printed, log) = (
            collect(child.stdout.take().unwrap()),
            collect(child.stderr.take().unwrap()),
        );
        let mut process = Self {
            child,
            printed,
            log,
            url: String::new(),
            client: harness::client(),
            _data: data,
        };
        // The first start prints its keys when the database is prepared.
        process
            .wait_for("the first keys", |one| one.printed().contains("dbw_"))
            .await;
        let printed = process.printed();
        let url = printed
            .split_whitespace()
            .find(|word| word.starts_with("http://127.0.0.1"));
        process.url = url.unwrap().trim_end_matches('/').to_owned();
        process
    }

    fn printed(&self) -> String {
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(
                start.elapsed() < 3 * LIMIT,
                "{what} did not come:\n{}\n{}",
                self.printed(),
                self.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Returns a key that the first start printed.
    fn key(&self, prefix: &str) -> String {
        let printed = self.printed();
        let key = printed.split_whitespace().find(|word| word.starts_with(prefix));
        key.unwrap_or_else(|| panic!("no {prefix} in {printed}"))
            .to_owned()
    }

    /// Stops the process in order, so that its log is complete. Returns the log.
    async fn stopped(mut self) -> String {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < 3 * LIMIT, "it does not stop:\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.wait_for("the last line", |one| one.log().contains("stopped"))
            .await;
        self.log()
    }
}

/// Returns the lines of a log that contain this request id.
fn lines_of<'log>(log: &'log str, id: &str) -> Vec<&'log str> {
    log.lines()
        .filter(|line| line.contains(&format!("request_id={id}}}")))
        .collect()
}

/// Returns a path with a secret in the place of each parameter.
fn filled(path: &str, ping_key: &str, secret: &str, uuid: &str) -> String {
    path.replace("{id}", uuid)
        .replace("{ping_id}", uuid)
        .replace("{address}", uuid)
        .replace("{n}", "1")
        .replace("{what}", "start")
        .replace("{action}", "start")
        .replace("{length}", "1s")
        .replace("{ping_key}", ping_key)
        .replace("{slug}", secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_logs_a_secret_and_each_request_has_one_line_under_its_id() {
    let process = Process::start(&[
        // The log is as detailed as possible, except for what other libraries log about bytes at trace level.
        (
            "DEADBEAT_LOG",
            "debug,deadbeat_http=trace,deadbeat_services=trace",
        ),
        ("NO_COLOR", "1"),
    ])
    .await;
    let (api_key, ping_key) = (process.key("dbw_"), process.key("dbp_"));
    // Each secret could be part of a path, the value of a query or a body, or a header.
    let secret = format!("hush-{}", Uuid::new_v4().simple());
    let uuid = Uuid::new_v4().to_string();
    let wrong_key = format!("dbw_{}", Uuid::new_v4().simple());
    let secrets = [&api_key, &ping_key, &secret, &uuid, &wrong_key];
    let query = format!("?token={secret}&rid={uuid}&cursor={secret}&create=1&tz={secret}");
    let body = json!({"name": secret, "password": secret, "token": secret, "settings": {"url": secret}});

    let mut sent: Vec<(String, String, Operation, StatusCode)> = Vec::new();
    for operation in contract().operations() {
        let path = filled(&operation.path, &ping_key, &secret, &uuid);
        for (query, key) in [("", &api_key), (&*query, &api_key), (&*query, &wrong_key)] {
            let id = format!("sent-{}", sent.len());
            let answer = process
                .client
                .request(operation.http_method(), format!("{}{path}{query}", process.url))
                .bearer_auth(key)
                .header("X-Request-Id", &id)
                .header("Cookie", format!("deadbeat_session={secret}"))
                .header("Referer", format!("{}/{secret}", process.url))
                .header("User-Agent", &secret)
                .json(&body)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.headers()["x-request-id"], id.as_str(), "{operation}");
            sent.push((id, path.clone(), operation.clone(), answer.status()));
        }
    }
    // Pages, files, and paths that do not exist.
    for path in [
        format!("/{secret}"),
        format!("/api/v1/{secret}"),
        format!("/api/{secret}/{secret}"),
        format!("/ping/{secret}"),
        format!("/static/{secret}"),
        format!("/causes/{secret}"),
        format!("/confirm/{secret}"),
        format!("/sign-in?next={secret}"),
        format!("/?project={uuid}"),
        format!("/runs/{uuid}"),
        "/sign-out".to_owned(),
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let url = format!("{}{path}", process.url);
            let form = format!("email={secret}&password={secret}&form_token={secret}");
            let request = process.client.request(method, url).body(form);
            let request = request.header("Content-Type", "application/x-www-form-urlencoded");
            let answer = request.send().await.unwrap();
            let id = answer.headers()["x-request-id"].to_str().unwrap();
            assert!(Uuid::try_parse(id).is_ok(), "{path}: {id}");
        }
    }

    let log = process.stopped().await;
    for secret in secrets {
        let found: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(secret.as_str()))
            .collect();
        assert!(found.is_empty(), "{secret} is in the log: {found:#?}");
    }
    for (id, path, operation, status) in sent {
        let lines = lines_of(&log, &id);
        let answered: Vec<&&str> = lines.iter().filter(|line| line.contains(" answered ")).collect();
        assert_eq!(answered.len(), 1, "{operation} at {path}: {lines:#?}");
        let is_ping = operation.path.starts_with("/ping/") || operation.path.starts_with("/{");
        let route = if is_ping { "/ping/{…}" } else { &*operation.path };
        for part in [
            format!("method=\"{}\"", operation.http_method()),
            format!("route=\"{route}\""),
            format!("status={}", status.as_u16()),
            "duration_ms=".to_owned(),
        ] {
            assert!(answered[0].contains(&part), "{part} is not in {}", answered[0]);
        }
        assert_eq!(answered[0].contains(" DEBUG "), is_ping, "{}", answered[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_log_has_a_line_for_each_request_but_pings() {
    let process = Process::start(&[("DEADBEAT_LOG_FORMAT", "json")]).await;
    let (api_key, ping_key) = (process.key("dbw_"), process.key("dbp_"));
    let ping = format!("/ping/{ping_key}/a-job?create=1");
    let root = format!("/{ping_key}/a-job");
    for (path, id) in [
        (&*ping, "a-ping"),
        (&*root, "a-root-ping"),
        ("/api/v1/monitors", "a-list"),
    ] {
        let request = process.client.get(format!("{}{path}", process.url));
        let answer = request
            .bearer_auth(&api_key)
            .header("X-Request-Id", id)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{path}");
    }
    let keys: Value = process
        .client
        .get(format!("{}/api/v1/api-keys", process.url))
        .bearer_auth(&api_key)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let key = keys["api_keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["scope"] == "write")
        .unwrap();

    let log = process.stopped().await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |id: &str| -> Vec<&Value> {
        lines
            .iter()
            .filter(|line| line["span"]["request_id"] == id)
            .collect()
    };
    assert!(of("a-ping").is_empty(), "{:#?}", of("a-ping"));
    assert!(of("a-root-ping").is_empty(), "{:#?}", of("a-root-ping"));
    let [line] = of("a-list")[..] else {
        panic!("{:#?}", of("a-list"))
    };
    assert_eq!(line["target"], "deadbeat_http::access");
    assert_eq!(line["level"], "INFO");
    let fields = &line["fields"];
    assert_eq!(fields["message"], "answered");
    assert_eq!(fields["route"], "/api/v1/monitors");
    assert_eq!(fields["status"], 200);
    assert_eq!(fields["api_key.id"], key["id"], "{fields}");
    assert!(fields["duration_ms"].as_f64().unwrap() > 0.0, "{fields}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_answers_500_under_the_request_id() {
    // The clock panics for any caller that reads the time while it answers a request.
    let poison = PoisonedClock::new(Arc::new(SystemClock), "deadbeat_http::");
    let harness = harness::start_by(Arc::new(poison.clone()), None, false).await;
    harness.ready().await;
    let ping = format!("/ping/{}/a-job", harness.ping_key);

    for (path, kind) in [
        (&*ping, "text/plain; charset=utf-8"),
        ("/api/v1/monitors", "application/problem+json"),
        ("/readyz", "text/html; charset=utf-8"),
    ] {
        poison.poison(1);
        let (method, body) = if path == ping {
            (Method::POST, "a body")
        } else {
            (Method::GET, "")
        };
        let request = harness.request(method, path).header("X-Request-Id", "broken");
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(poison.doses(), 0, "{path} does not read the clock");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert_eq!(answer.headers()["x-request-id"], "broken", "{path}");
        assert_eq!(answer.headers()["content-type"], kind, "{path}");
        let body = answer.text().await.unwrap();
        assert!(!body.contains("poisoned"), "{path}: {body}");
        match path {
            "/api/v1/monitors" => assert_eq!(
                serde_json::from_str::<Value>(&body).unwrap()["request_id"],
                "broken"
            ),
            "/readyz" => assert!(body.contains("broken"), "{body}"),
            _ => assert_eq!(body, "internal error, try again"),
        }
        let next = harness.request(Method::GET, path).send().await.unwrap();
        assert!(next.status() != StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
    harness.stop().await;
}
