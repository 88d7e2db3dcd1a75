//! While the database is unreachable, every operation answers as the contract says, within a short time.

use std::net::TcpListener as StdListener;
use std::str::FromStr;
use std::time::{Duration, Instant};

use deadbeat_app::{App, Parts};
use futures::future::join_all;
use reqwest::StatusCode;
use sqlx::postgres::PgConnectOptions;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::document::contract;
use super::routes::filled;
use crate::harness::{self, Harness};

/// A proxy to the database. The test cuts it permanently: dropping the task closes the port and every connection.
async fn proxy(options: &PgConnectOptions) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = options
        .get_socket()
        .map(|folder| folder.join(format!(".s.PGSQL.{}", options.get_port())));
    let server = (options.get_host().to_owned(), options.get_port());
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let (socket, server) = (socket.clone(), server.clone());
            connections.spawn(async move {
                // The end of either side ends the connection, and needs no further work.
                let _ = match socket {
                    Some(socket) => {
                        let mut database = UnixStream::connect(socket).await.unwrap();
                        copy_bidirectional(&mut client, &mut database).await
                    }
                    None => {
                        let mut database = TcpStream::connect(server).await.unwrap();
                        copy_bidirectional(&mut client, &mut database).await
                    }
                };
            });
        }
    });
    (port, task)
}

/// Starts a server that reaches the harness's database through a proxy.
async fn behind_proxy(harness: &Harness) -> (String, App, tokio::task::JoinHandle<()>) {
    let options = PgConnectOptions::from_str(&harness.database_url).unwrap();
    let (port, proxy) = proxy(&options).await;
    let database_url = format!(
        "postgres://{}@127.0.0.1:{port}/{}?sslmode=disable",
        options.get_username(),
        options.get_database().unwrap()
    );
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = App::start(Parts::new(
        listener,
        database_url,
        url.clone(),
        harness::senders(None),
    ))
    .unwrap();
    (url, app, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_says_that_the_database_is_away() {
    let harness = harness::start().await;
    let (url, app, proxy) = behind_proxy(&harness).await;
    let ready = harness.client.get(format!("{url}/readyz")).send().await.unwrap();
    assert_ne!(ready.status(), StatusCode::INTERNAL_SERVER_ERROR);

    proxy.abort();
    let _ = proxy.await;
    let start = Instant::now();
    let calls = contract().operations().into_iter().map(|operation| {
        let path = filled(&operation.path, &harness);
        let request = harness
            .client
            .request(operation.http_method(), format!("{url}{path}"))
            .bearer_auth(&harness.api_key);
        async move {
            let answer = request
                .send()
                .await
                .unwrap_or_else(|error| panic!("{operation}: {error:?}"));
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await.unwrap();
            contract().check_answer(&operation, status, &headers, &body);
            (operation, status)
        }
    });
    for (operation, status) in join_all(calls).await {
        let needs_no_database =
            ["/healthz", "/metrics"].contains(&operation.path.as_str()) || operation.method == "options";
        let expected = match (needs_no_database, operation.method.as_str()) {
            (true, "options") => StatusCode::NO_CONTENT,
            (true, _) => StatusCode::OK,
            (false, _) => StatusCode::SERVICE_UNAVAILABLE,
        };
        assert_eq!(status, expected, "{operation}");
    }
    assert!(start.elapsed() < Duration::from_secs(15));
    app.stop().await;
    harness.stop().await;
}
