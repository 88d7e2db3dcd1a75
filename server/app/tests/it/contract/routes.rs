//! Every route of the server is in the contract, and every route of the contract is in the server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::document::{METHODS, Operation, contract};
use crate::harness::{self, Harness};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../http/src")
}

fn quoted(text: &str) -> &str {
    text.split('"').nth(1).unwrap()
}

/// Returns the operations that a file registers with `web::resource("…").route(web::get()…`.
fn registered(source: &str) -> BTreeSet<Operation> {
    let mut operations = BTreeSet::new();
    for resource in source.split("web::resource(").skip(1) {
        let path = format!("/api/v1{}", quoted(resource));
        for route in resource.split(".route(web::").skip(1) {
            let method = route.split('(').next().unwrap();
            assert!(
                METHODS.contains(&method),
                "{path} is registered for {method}, which this test cannot read"
            );
            operations.insert(Operation {
                method: method.to_owned(),
                path: path.clone(),
            });
        }
    }
    operations
}

/// Returns every Rust file below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn the_routes_in_the_source_are_those_of_the_contract() {
    let api = sources().join("api");
    let mut found = BTreeSet::new();
    let mut files = BTreeSet::new();
    for path in rust_files(&api) {
        let source = std::fs::read_to_string(&path).unwrap();
        let module = path.strip_prefix(&api).unwrap().with_extension("");
        let name = module.to_str().unwrap().replace('/', "::");
        // A folder without routes of its own has only modules.
        if name == "mod" || !source.contains("fn configure(") {
            assert!(
                !source.contains("operation(\""),
                "{name} registers routes that nobody mounts"
            );
            continue;
        }
        // This test would overlook routes that are registered in other ways.
        for other in [
            "web::scope",
            "#[get",
            "#[post",
            "#[put",
            "#[patch",
            "#[delete",
            "#[route",
            ".route(\"",
            "web::method(",
        ] {
            assert!(
                !source.contains(other),
                "{name}.rs registers a route with {other}"
            );
        }
        found.extend(registered(&source));
        files.insert(name);
    }
    let mounted = std::fs::read_to_string(api.join("mod.rs")).unwrap();
    for name in &files {
        assert!(
            mounted.contains(&format!(".configure({name}::configure)")),
            "{name}.rs is not mounted"
        );
    }
    for file in ["operation/health.rs", "operation/metrics.rs"] {
        let source = std::fs::read_to_string(sources().join(file)).unwrap();
        // These files register routes as `operation("…").route(web::get()…`, and HEAD with them.
        for resource in source.split("operation(\"").skip(1) {
            assert!(resource.contains(".route(web::get()"), "{file}");
            found.insert(Operation {
                method: "get".to_owned(),
                path: resource.split('"').next().unwrap().to_owned(),
            });
        }
    }

    let is_ping_url =
        |operation: &Operation| operation.path.starts_with("/ping/") || operation.path.starts_with("/{");
    let listed: BTreeSet<Operation> = contract()
        .operations()
        .into_iter()
        .filter(|one| !is_ping_url(one))
        .collect();
    assert_eq!(found, listed);
    assert!(found.len() > 30);
}

/// Returns a path with values in the place of its parameters.
pub fn filled(path: &str, harness: &Harness) -> String {
    let uuid = Uuid::new_v4().to_string();
    let slug = if path.contains("{ping_key}") {
        "a-slug"
    } else {
        &uuid
    };
    path.replace("{id}", &uuid)
        .replace("{n}", "1")
        .replace("{ping_id}", &uuid)
        .replace("{address}", &uuid)
        .replace("{what}", "start")
        .replace("{ping_key}", &harness.ping_key)
        .replace("{slug}", slug)
        .replace("{length}", "1s")
        .replace("{action}", "start")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_served_and_every_other_method_is_refused() {
    let harness = harness::start().await;
    let operations = contract().operations();

    for path in contract().paths() {
        for method in METHODS.iter().copied().chain(["trace", "purge"]) {
            let operation = Operation {
                method: method.to_owned(),
                path: path.clone(),
            };
            let url = filled(&path, &harness);
            let answer = harness
                .request(operation.http_method(), &url)
                .send()
                .await
                .unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await.unwrap();
            let text = String::from_utf8_lossy(&body);
            if operations.contains(&operation) {
                assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{operation}");
                assert!(!text.contains("there is no path"), "{operation}: {text}");
                contract().check_answer(&operation, status, &headers, &body);
            } else if ["/healthz", "/readyz", "/metrics"].contains(&path.as_str()) && method == "head" {
                // HEAD is GET without the body (RFC 9110, 9.3.2). Some load balancers use HEAD.
                assert!(status.is_success(), "{operation}: {status}");
                assert!(body.is_empty(), "{operation}");
            } else {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{operation}: {text}");
                if path.starts_with("/api/") {
                    let body = (method != "head").then_some(&body[..]);
                    contract().check_response(
                        &operation.to_string(),
                        "/components/responses/MethodNotAllowed",
                        &headers,
                        body,
                    );
                }
            }
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_the_contract_does_not_have_are_not_found() {
    let harness = harness::start().await;

    for path in [
        "/api/v1",
        "/api/v1/",
        "/api/v1/monitor",
        "/api/v1/monitors/",
        "/api/v1/monitors/a/b",
        "/api/v1/monitors//pause",
        "/api/v1/monitors/%00/x",
        "/api/v1/%ff",
        "/api/v1/events/x",
        "/api/v1/../v1/x",
        "/api/v1/users",
        "/api/v1/openapi.yaml",
    ] {
        let answer = harness.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        if path.starts_with("/api/v1/") {
            let headers = answer.headers().clone();
            let body = answer.bytes().await.unwrap();
            contract().check_response(path, "/components/responses/NotFound", &headers, Some(&body));
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_asks_for_the_scope_that_the_contract_names() {
    let harness = harness::start().await;
    let keys = [
        ("ping", &harness.ping_key),
        ("read", &harness.read_key),
        ("write", &harness.api_key),
    ];

    for operation in contract().operations() {
        let Some(wanted) = contract().scope(&operation) else {
            let security = contract().statuses(&operation);
            assert!(
                !security.contains(&401),
                "{operation} needs no key, yet lists 401"
            );
            continue;
        };
        let url = format!("{}{}", harness.url, filled(&operation.path, &harness));
        let request = || harness.client.request(operation.http_method(), &url);
        for (scope, key) in keys {
            let allowed = scope == wanted
                || matches!(
                    (scope, wanted.as_str()),
                    ("write", "read" | "audit" | "metrics") | ("read", "metrics")
                );
            for request in [request().bearer_auth(key), request().header("X-Api-Key", key)] {
                let answer = request.send().await.unwrap();
                let (status, headers) = (answer.status(), answer.headers().clone());
                let body = answer.bytes().await.unwrap();
                contract().check_answer(&operation, status, &headers, &body);
                let code = serde_json::from_slice::<Value>(&body).unwrap_or_default()["code"].clone();
                assert_eq!(
                    code != "key_scope",
                    allowed,
                    "{operation} with a {scope} key: {status}"
                );
            }
        }
        let wrong = format!("{}x", harness.api_key);
        for (request, code) in [
            (request(), "missing_key"),
            (request().header("Authorization", "Bearer "), "missing_key"),
            (
                request().header("Authorization", format!("Basic {}", harness.api_key)),
                "missing_key",
            ),
            (
                request().header("Authorization", harness.api_key.clone()),
                "missing_key",
            ),
            (
                request().header("Authorization", &b"Bearer \xff\xfe"[..]),
                "missing_key",
            ),
            (request().bearer_auth(&wrong), "unknown_key"),
            (request().bearer_auth(&harness.api_key[..20]), "unknown_key"),
            (request().bearer_auth("x".repeat(5_000)), "unknown_key"),
            (request().header("X-Api-Key", "nonsense"), "unknown_key"),
        ] {
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await.unwrap();
            contract().check_answer(&operation, status, &headers, &body);
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (status.as_u16(), problem["code"].as_str()),
                (401, Some(code)),
                "{operation}"
            );
        }
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_take_the_query_parameters_of_the_contract_and_no_others() {
    let harness = harness::start().await;
    let monitor = harness
        .monitor(serde_json::json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    let id = monitor["id"].as_str().unwrap();
    let good = |name: &str| match name {
        "limit" => "1".to_owned(),
        "cursor" | "actor_id" | "channel_id" | "incident_id" | "subject_id" | "monitor_id" => {
            Uuid::new_v4().to_string()
        }
        "from" | "to" | "since" | "until" => "2026-03-01T00:00:00Z".to_owned(),
        "state" => "open".to_owned(),
        "after" => "7".to_owned(),
        "action" => "monitor.created".to_owned(),
        _ => "x".to_owned(),
    };

    let lists = contract()
        .operations()
        .into_iter()
        .filter(|one| contract().query_parameters(one).contains("limit"));
    let lists: Vec<Operation> = lists.collect();
    assert_eq!(lists.len(), 21);
    for operation in lists {
        let base = operation.path.replace("{id}", id);
        for name in contract().query_parameters(&operation) {
            let value = match (operation.path.as_str(), name.as_str()) {
                ("/api/v1/monitors", "status") => "late".to_owned(),
                ("/api/v1/deliveries", "status") => "dead".to_owned(),
                ("/api/v1/monitors/{id}/pings", "cursor") => "7".to_owned(),
                ("/api/v1/runs", "cursor") => format!("1772323200000000-{}", Uuid::new_v4().simple()),
                _ => good(&name),
            };
            let answer = harness
                .request(Method::GET, &format!("{base}?{name}={value}"))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{base}?{name}={value}");
        }
        for bad in [
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=1.5",
            "limit=1e2",
            "limit=",
            "limit=x",
            "limit=99999999999999999999",
            "cursor=",
            "cursor=x",
            "cursor=%00",
            "offset=1",
            "Limit=1",
            "=",
            "a%00b=1",
            "status=%00",
            "state=x",
            "status=x",
            "channel_id=x",
            "incident_id=%00",
            "subject_id=1",
            "search=a%00b&x",
            "slug=%00",
            "tag=%00",
            "search=%00",
            "page=2",
            "from=yesterday",
            "to=2026-03-01",
            "monitor_id=x",
            "worker=a%00b",
            "cursor=-1-x",
            "after=-1",
            "after=x",
            "after=1.5",
            "after=",
            "after=99999999999999999999",
            "cursor=99999999999999999999-00000000000000000000000000000000",
        ] {
            let answer = harness
                .request(Method::GET, &format!("{base}?{bad}"))
                .send()
                .await
                .unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await.unwrap();
            assert_eq!(
                status,
                StatusCode::BAD_REQUEST,
                "{base}?{bad}: {}",
                String::from_utf8_lossy(&body)
            );
            contract().check_answer(&operation, status, &headers, &body);
        }
    }
    harness.stop().await;
}
