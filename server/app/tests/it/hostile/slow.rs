//! Clients that hold connections: the server closes these, and serves others meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use deadbeat_app::Parts;
use deadbeat_http::connection::{ConnectionSettings, Patience};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{self, Harness, LIMIT};

fn settings(per_address: usize, total: usize) -> ConnectionSettings {
    ConnectionSettings {
        per_address,
        total,
        patience: Patience {
            base: Duration::from_millis(500),
            bytes_per_second: 1_000_000,
        },
    }
}

/// Starts a server that limits the connections of this machine, too.
async fn start(connections: ConnectionSettings) -> Harness {
    harness::start_changed(|parts| Parts {
        connections,
        trusted_proxies: "".parse().unwrap(),
        ..parts
    })
    .await
}

/// Connects from an address of this machine that no other client uses.
async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn ping_url(harness: &Harness) -> String {
    let monitor = harness
        .monitor(json!({"name": "Job", "schedule": {"kind": "interval", "seconds": 60}}))
        .await;
    monitor["ping_url"].as_str().unwrap().to_owned()
}

/// Waits until the server closes a connection.
async fn is_cut(mut stream: TcpStream) {
    let mut answer = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server keeps an idle connection open");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_that_does_not_come_is_cut_and_pings_are_answered_meanwhile() {
    // There are far fewer places than slow clients. If the server never closed their connections, other clients would get no place.
    let harness = start(settings(1_000, 40)).await;
    let ping_url = ping_url(&harness).await;
    let ping = &ping_url[harness.url.len()..];
    let key = format!("Authorization: Bearer {}\r\n", harness.api_key);
    let ping_key = format!("Authorization: Bearer {}\r\n", harness.ping_key);
    let requests = [
        ("POST", "/sign-in", ""),
        ("POST", "/sign-out", ""),
        ("POST", "/api/v1/events", ping_key.as_str()),
        ("POST", "/api/v1/monitors", key.as_str()),
        ("POST", "/api/v1/monitors", ""),
        ("GET", "/healthz", ""),
        ("POST", "/nowhere", ""),
        ("POST", ping, ""),
    ];
    let mut slow = Vec::new();
    for n in 0..200 {
        let (method, path, key) = requests[n % requests.len()];
        let framing = ["Content-Length: 10000", "Transfer-Encoding: chunked"][n / requests.len() % 2];
        let mut stream = TcpStream::connect(harness.app.address()).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{key}{framing}\r\n\r\n1");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }

    for _ in 0..5 {
        // A client that keeps no connection, like the one of a cron job.
        let answer = harness::client().get(&ping_url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    futures::future::join_all(slow.into_iter().map(is_cut)).await;
    harness.stop().await;
}

/// The HTTP library has a deadline only for the first head of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_head_that_does_not_come_is_cut() {
    let harness = start(settings(1_000, 1_000)).await;
    let mut stream = TcpStream::connect(harness.app.address()).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HT")
        .await
        .unwrap();

    is_cut(stream).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_cut() {
    // This address has one place, which is free again when the server closes the connection.
    let harness = start(settings(1, 1_000)).await;
    let reader = connect_from("127.0.0.5", harness.app.address()).await;
    let (_keep, mut write) = reader.into_split();
    let asks = tokio::spawn(async move {
        // The answers exceed by far what the kernel's buffers can hold.
        for _ in 0..20_000 {
            if write
                .write_all(b"GET /docs/problems HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .is_err()
            {
                return;
            }
        }
    });

    let start = Instant::now();
    loop {
        let mut next = connect_from("127.0.0.5", harness.app.address()).await;
        let _ = next
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, next.read_to_end(&mut answer)).await;
        if answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(
            start.elapsed() < LIMIT,
            "the connection of a client that reads nothing stays open"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    asks.abort();
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_get_all_connections() {
    let generous = ConnectionSettings {
        patience: ConnectionSettings::default().patience,
        ..settings(10, 1_000)
    };
    let harness = start(generous).await;
    let ping_url = ping_url(&harness).await;

    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = connect_from("127.0.0.6", harness.app.address()).await;
        // The server has answered, so this connection has its place before the next one asks.
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 1_000];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        held.push(stream);
    }
    is_cut(connect_from("127.0.0.6", harness.app.address()).await).await;

    let elsewhere = Client::builder()
        .local_address(Some("127.0.0.7".parse().unwrap()))
        .no_proxy()
        .build()
        .unwrap();
    let answer = elsewhere.get(&ping_url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    drop(held);
    harness.stop().await;
}

/// Behind a trusted proxy, all clients have the proxy's address.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_has_as_many_connections_as_it_wants() {
    let harness = harness::start_changed(|parts| Parts {
        connections: settings(2, 1_000),
        ..parts
    })
    .await;

    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(harness.app.address()).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        held.push(stream);
    }
    harness.stop().await;
}
