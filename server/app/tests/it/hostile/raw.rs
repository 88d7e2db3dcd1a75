//! Requests byte by byte, as no well-behaved client writes them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{self, Harness, LIMIT};

/// Sends bytes, in pieces, and reads until the server closes the connection.
pub async fn exchange(harness: &Harness, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(harness.app.address()).await.unwrap();
    for piece in pieces {
        // A server that has already refused may have closed the connection.
        let _ = stream.write_all(piece).await;
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the server neither answered nor closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A proxy may take a bare LF as part of a header's value and forward it. Two readers of one head would then see two requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_line_feed_in_a_head_is_refused() {
    let harness = harness::start().await;
    let heads: [&[&[u8]]; 7] = [
        &[b"GET /healthz HTTP/1.1\nHost: a\r\nConnection: close\r\n\r\n"],
        &[b"GET /healthz HTTP/1.1\r\nHost: a\nConnection: close\r\n\r\n"],
        &[b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"],
        &[b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\n"],
        &[b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\n\n"],
        // The request comes in pieces, and one piece ends with the carriage return.
        &[b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a", b"\n", b"Connection: close\r\n\r\n"],
        // The second request of a connection. The body before it contains bare line feeds, which are allowed there.
        &[
            b"POST /ping/00000000-0000-4000-8000-000000000000 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na\n\nb",
            b"GET /healthz HTTP/1.1\r\nHost: a\nConnection: close\r\n\r\n",
        ],
    ];

    for head in heads {
        let answer = exchange(&harness, head).await;
        let last = answer.rfind("HTTP/1.1 ").map_or("", |at| &answer[at..]);
        assert!(
            last.starts_with("HTTP/1.1 400"),
            "{:?} was answered with {answer:?}",
            head.iter()
                .map(|piece| String::from_utf8_lossy(piece))
                .collect::<Vec<_>>()
        );
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_requests_pass_however_they_are_cut() {
    let harness = harness::start().await;
    let close = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let nowhere = "/ping/00000000-0000-4000-8000-000000000000";
    let requests = [
        // Pipelined requests, with bodies of both kinds. The bodies contain line feeds and text that looks like a head.
        format!(
            "POST {nowhere} HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\na\n\nGET / HTTP/1.1\n\n\n\
             POST {nowhere} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n\n\n\n\n\n\r\nA\r\n0123456789\r\n0\r\n\r\n\
             GET {nowhere} HTTP/1.1\r\nHost: a\r\n\r\n{close}"
        ),
        // A request with trailers, and one whose content length has blanks.
        format!(
            "POST {nowhere} HTTP/1.1\r\nHost: a\r\ncontent-length:  3 \r\n\r\n\n\n\n\
             PUT {nowhere} HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n{close}"
        ),
        // An empty line before a request is allowed (RFC 9112, 2.2).
        format!("\r\n{close}"),
    ];

    for request in &requests {
        let answers = request.matches(" HTTP/1.1\r\n").count();
        for size in [1, 2, 3, 7, 64, request.len()] {
            let pieces: Vec<&[u8]> = request.as_bytes().chunks(size).collect();
            let answer = exchange(&harness, &pieces).await;
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                answers,
                "in pieces of {size}: {request:?} was answered with {answer:?}"
            );
            assert!(
                !answer.contains("HTTP/1.1 400"),
                "in pieces of {size}: {answer:?}"
            );
        }
    }
    harness.stop().await;
}
