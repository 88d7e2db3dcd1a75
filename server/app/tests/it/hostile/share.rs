//! Requests share the database fairly: when the requests of one asker hang, the server answers those of another.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::harness::{Harness, LIMIT, start};

/// The number of concurrent requests of one client, which exceeds the number of connections to the database.
const FLOOD: usize = 30;
/// The limit `OF_ONE_ASKER` of server/app/src/lib.rs.
const OF_ONE_ASKER: i64 = 4;

/// Returns the number of statements that wait for a lock.
async fn waiting_for_a_lock(server: &Harness) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .fetch_one(&server.pool)
    .await
    .unwrap()
}

/// Makes a request that a proxy forwards for a client with this address.
fn from(address: &str, request: RequestBuilder) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

async fn is_answered(request: RequestBuilder, what: &str) {
    let answer = request.send().await.unwrap();
    assert_eq!(
        answer.status(),
        StatusCode::OK,
        "{what}: {:?}",
        answer.text().await
    );
}

/// Floods the server with requests of one project that hang, checks other requests meanwhile, and then releases the flood.
async fn flood(server: &Harness, address: impl Fn(usize) -> String) {
    let monitor = server
        .monitor(json!({"name": "Held", "schedule": {"kind": "interval", "seconds": 3600}}))
        .await;
    let id = monitor["id"].as_str().unwrap();
    let mut holds = server.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM monitor WHERE id = $1::uuid FOR UPDATE")
        .bind(id)
        .execute(&mut *holds)
        .await
        .unwrap();
    let path = format!("/api/v1/monitors/{id}");
    let flood: Vec<_> = (0..FLOOD)
        .map(|number| {
            let request = server.request(Method::PATCH, &path).json(&json!({"name": "New"}));
            tokio::spawn(from(&address(number), request).send())
        })
        .collect();
    let start = Instant::now();
    while waiting_for_a_lock(server).await < OF_ONE_ASKER {
        assert!(start.elapsed() < LIMIT, "the flood does not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let (other, _) = server.other_project().await;
    let monitors = format!("{}/api/v1/monitors", server.url);
    for round in 0..5 {
        let of_other = server.client.get(&monitors).bearer_auth(&other);
        is_answered(
            from("198.51.100.2", of_other),
            &format!("another project, round {round}"),
        )
        .await;
        let ready = server.client.get(format!("{}/readyz", server.url));
        is_answered(from("198.51.100.3", ready), "a probe").await;
    }
    assert_eq!(waiting_for_a_lock(server).await, OF_ONE_ASKER);

    holds.rollback().await.unwrap();
    for answer in flood {
        let answer = answer.await.unwrap().unwrap();
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.headers().contains_key("retry-after"));
                let problem: serde_json::Value = answer.json().await.unwrap();
                assert_eq!(problem["code"], "busy");
            }
            status => panic!("{status}"),
        }
    }
    is_answered(server.request(Method::GET, &path), "the project itself").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_project_that_hang_leave_connections_for_others() {
    let server = start().await;
    flood(&server, |_| "203.0.113.7".to_owned()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_has_its_share_however_many_addresses_its_clients_have() {
    let server = start().await;
    flood(&server, |number| format!("203.0.113.{number}")).await;
    server.stop().await;
}

/// Unknown clients cannot crowd out a client with a key: they have the share of their address.
#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_project_have_the_share_of_their_address() {
    let server = start().await;
    // Every query for a key hangs.
    let mut holds = server.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE api_key IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holds)
        .await
        .unwrap();
    let flood: Vec<_> = (0..FLOOD)
        .map(|_| tokio::spawn(from("203.0.113.7", server.request(Method::GET, "/api/v1/monitors")).send()))
        .collect();
    let start = Instant::now();
    while waiting_for_a_lock(&server).await < OF_ONE_ASKER {
        assert!(start.elapsed() < LIMIT, "the flood does not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for _ in 0..5 {
        let ready = server.client.get(format!("{}/readyz", server.url));
        is_answered(from("198.51.100.3", ready), "a probe").await;
    }
    // A probe from the address of the flood learns that the database answers.
    let ready = server.client.get(format!("{}/readyz", server.url));
    is_answered(from("203.0.113.7", ready), "a probe beside the flood").await;

    holds.rollback().await.unwrap();
    for answer in flood {
        answer.await.unwrap().unwrap();
    }
    server.stop().await;
}
