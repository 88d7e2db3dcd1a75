//! A load generator for stages of runs: batches as the Python SDK sends them, made before the clock starts.
//!
//! Every run has four stages from three processes: the publisher, the worker's main process, and its child. A connection sends the
//! stages of the same runs process by process, so that stages of two processes never share a commit. That is the worst case, and the
//! usual one, because each process sends once a second.

use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Sends stages of runs and prints the figures as one JSON object.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// A ping key.
    #[arg(long, default_value = "")]
    key: String,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Stages in all; a multiple of four batches for each connection is sent.
    #[arg(long, default_value_t = 200_000)]
    stages: usize,
    /// Stages of a batch.
    #[arg(long, default_value_t = 200)]
    batch: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(
        arguments.batch.is_multiple_of(2) && arguments.batch > 0,
        "a batch is an even number of stages"
    );
    let rounds = (arguments.stages / (arguments.connections * arguments.batch * 4)).max(1);
    let mut plans = Vec::new();
    for connection in 0..arguments.connections {
        let mut requests = Vec::new();
        for _ in 0..rounds {
            for body in bodies(arguments.batch, connection)? {
                requests.push(request(&arguments.key, &body)?);
            }
        }
        plans.push(requests);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(&arguments, plans))
}

/// The reports of the three processes about one batch of runs: the publisher's, the main process's, and the child's in two batches.
fn bodies(batch: usize, connection: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let now = now();
    let worker = format!("celery@worker-{connection}");
    let runs: Vec<(Uuid, Uuid)> = (0..batch).map(|_| (Uuid::new_v4(), Uuid::new_v4())).collect();
    let of = |kind: &str, run: Uuid, at: DateTime<Utc>, worker: Option<&str>, more: Value| {
        let mut event = json!({"id": Uuid::new_v4(), "type": kind, "at": text(at), "beat": "shop", "entry": null, "run_id": run,
            "task": format!("shop.tasks.job_{}", run.as_u128() % 40), "task_id": run, "worker": worker, "retries": 0});
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        event
    };
    let sent = now - TimeDelta::milliseconds(900);
    let delivery = json!({"queue": "celery", "redelivered": false, "published_at": text(sent), "eta": null, "pid": 4711});
    let published = runs.iter().map(|(run, _)| {
        of(
            "run_published",
            *run,
            sent,
            None,
            json!({"queue": "celery", "slot": null, "eta": null}),
        )
    });
    let received = runs.iter().map(|(run, _)| {
        of(
            "run_received",
            *run,
            sent + TimeDelta::milliseconds(200),
            Some(&worker),
            delivery.clone(),
        )
    });
    let ran = runs.iter().flat_map(|(run, attempt)| {
        let mut started = delivery.clone();
        started["attempt"] = json!(attempt);
        let finished = json!({"outcome": "success", "soft": false, "duration_seconds": 0.251873, "error": null, "attempt": attempt,
            "queue": "celery"});
        [
            of("run_started", *run, sent + TimeDelta::milliseconds(210), Some(&worker), started),
            of("run_finished", *run, sent + TimeDelta::milliseconds(461), Some(&worker), finished),
        ]
    });
    let ran: Vec<Value> = ran.collect();
    let (first, second) = ran.split_at(batch);
    [published.collect(), received.collect(), first.to_vec(), second.to_vec()]
        .into_iter()
        .map(|events: Vec<Value>| {
            let body = json!({"sdk": {"name": "deadbeat-python", "version": "0.1.0"}, "sent_at": text(now), "events": events});
            let mut packed = GzEncoder::new(Vec::new(), Compression::new(6));
            packed.write_all(body.to_string().as_bytes())?;
            Ok(packed.finish()?)
        })
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "events carry the time of the machine's clock"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn request(key: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut request = Vec::with_capacity(body.len() + 300);
    write!(
        request,
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    request.extend_from_slice(body);
    Ok(request)
}

async fn run(arguments: &Arguments, plans: Vec<Vec<Vec<u8>>>) -> anyhow::Result<()> {
    let requests: usize = plans.iter().map(Vec::len).sum();
    let bytes: usize = plans.iter().flatten().map(Vec::len).sum();
    let start = Instant::now();
    let tasks: Vec<_> = plans
        .into_iter()
        .map(|plan| tokio::task::spawn_local(connection(arguments.target, Rc::new(plan))))
        .collect();
    let mut latency = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let (mut refused, mut rejected) = (0_u64, 0_u64);
    for task in tasks {
        let seen = task.await??;
        latency.add(&seen.latency)?;
        refused += seen.refused;
        rejected += seen.rejected;
    }
    let seconds = start.elapsed().as_secs_f64();
    let stages = requests * arguments.batch;
    let milliseconds = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    println!(
        "{}",
        json!({"seconds": seconds, "stages": stages, "per_second": stages as f64 / seconds, "refused": refused, "rejected": rejected,
            "p50_ms": milliseconds(0.5), "p99_ms": milliseconds(0.99), "bytes_a_stage": bytes as f64 / stages as f64})
    );
    Ok(())
}

struct LoadResult {
    latency: Histogram<u64>,
    /// Requests answered with "try again", and sent again.
    refused: u64,
    /// Requests with a rejected stage.
    rejected: u64,
}

async fn connection(target: SocketAddr, plan: Rc<Vec<Vec<u8>>>) -> anyhow::Result<LoadResult> {
    let mut seen = LoadResult {
        latency: Histogram::new_with_bounds(1, 600_000_000, 3)?,
        refused: 0,
        rejected: 0,
    };
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    for request in plan.iter() {
        let began = Instant::now();
        loop {
            stream.write_all(request).await?;
            let (status, body) = answer(&mut stream).await?;
            match status {
                200 => {
                    let rejected = b"rejected";
                    if body.windows(rejected.len()).any(|window| window == rejected) {
                        seen.rejected += 1;
                    }
                    break;
                }
                503 => {
                    seen.refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => anyhow::bail!("status {status}: {}", String::from_utf8_lossy(&body)),
            }
        }
        seen.latency
            .saturating_record(u64::try_from(began.elapsed().as_micros())?);
    }
    Ok(seen)
}

/// Reads one answer: its status and its body.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut have = Vec::with_capacity(32_768);
    let head = loop {
        anyhow::ensure!(stream.read_buf(&mut have).await? > 0, "the connection was closed");
        if let Some(head) = have.windows(4).position(|four| four == b"\r\n\r\n") {
            break head;
        }
    };
    let text = std::str::from_utf8(&have[..head])?.to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .context("an answer without a length")?;
    let whole = head + 4 + length.trim().parse::<usize>()?;
    while have.len() < whole {
        anyhow::ensure!(stream.read_buf(&mut have).await? > 0, "the answer broke off");
    }
    Ok((text[9..12].parse()?, have[head + 4..whole].to_vec()))
}
