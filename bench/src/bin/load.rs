//! A load generator for ping URLs: keep-alive connections on one thread.
//!
//! Latency counts from the instant at which a request was due, not from its sending. So a server that stalls cannot hide the
//! requests that it delayed.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends pings and prints the figures as one JSON object.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// A file of paths, one a line; each request takes a random one.
    #[arg(long)]
    paths: PathBuf,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// How long to send, in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Requests a second over all connections; as many as possible when left out.
    #[arg(long)]
    rate: Option<f64>,
    /// A file that gets the path of every request that was answered with 2xx, for comparing with what is stored.
    #[arg(long)]
    acknowledged: Option<PathBuf>,
    /// Seed of the random paths.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The results of one connection.
struct LoadResult {
    latency: Histogram<u64>,
    /// By status code; 0 is a broken connection.
    statuses: Vec<u64>,
    acknowledged: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let text = fs::read_to_string(&arguments.paths).context("the file of paths")?;
    let paths: Rc<Vec<String>> = Rc::new(text.lines().map(str::to_owned).collect());
    anyhow::ensure!(!paths.is_empty(), "the file of paths is empty");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(&arguments, paths))
}

async fn run(arguments: &Arguments, paths: Rc<Vec<String>>) -> anyhow::Result<()> {
    let start = Instant::now() + Duration::from_millis(50);
    let end = start + Duration::from_secs_f64(arguments.seconds);
    // Each connection sends its share of the rate, at even intervals.
    let pace = arguments
        .rate
        .map(|rate| Duration::from_secs_f64(arguments.connections as f64 / rate));
    let tasks: Vec<_> = (0..arguments.connections)
        .map(|number| {
            let offset = pace.map_or(Duration::ZERO, |pace| {
                pace.mul_f64(number as f64 / arguments.connections as f64)
            });
            let plan = Plan {
                target: arguments.target,
                paths: Rc::clone(&paths),
                first: start + offset,
                end,
                pace,
                keep: arguments.acknowledged.is_some(),
            };
            let random = SmallRng::seed_from_u64(arguments.seed.wrapping_mul(1_000_003) + number as u64);
            tokio::task::spawn_local(connection(plan, random))
        })
        .collect();
    let mut total = LoadResult::new()?;
    for task in tasks {
        let seen = task.await??;
        total.latency.add(&seen.latency)?;
        for (sum, count) in total.statuses.iter_mut().zip(&seen.statuses) {
            *sum += count;
        }
        total.acknowledged.extend(seen.acknowledged);
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(file) = &arguments.acknowledged {
        let mut file = std::io::BufWriter::new(fs::File::create(file)?);
        for path in total.acknowledged {
            writeln!(file, "{}", paths[path])?;
        }
        file.flush()?;
    }
    let answered: u64 = total.statuses[200..300].iter().sum();
    let statuses: serde_json::Map<String, serde_json::Value> = total
        .statuses
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| (status.to_string(), json!(count)))
        .collect();
    let milliseconds = |quantile: f64| total.latency.value_at_quantile(quantile) as f64 / 1_000.0;
    println!(
        "{}",
        json!({
            "seconds": seconds,
            "acknowledged": answered,
            "per_second": answered as f64 / seconds,
            "statuses": statuses,
            "p50_ms": milliseconds(0.5),
            "p99_ms": milliseconds(0.99),
            "max_ms": total.latency.max() as f64 / 1_000.0,
        })
    );
    Ok(())
}

impl LoadResult {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            // Microseconds up to ten minutes, to three digits.
            latency: Histogram::new_with_bounds(1, 600_000_000, 3)?,
            statuses: vec![0; 600],
            acknowledged: Vec::new(),
        })
    }
}

struct Plan {
    target: SocketAddr,
    paths: Rc<Vec<String>>,
    first: Instant,
    end: Instant,
    pace: Option<Duration>,
    keep: bool,
}

async fn connection(plan: Plan, mut random: SmallRng) -> anyhow::Result<LoadResult> {
    let mut seen = LoadResult::new()?;
    let mut stream: Option<TcpStream> = None;
    let mut request = Vec::with_capacity(256);
    let mut answer = vec![0; 4_096];
    let mut meant = plan.first;
    tokio::time::sleep_until(meant.into()).await;
    while meant < plan.end {
        let path = random.random_range(0..plan.paths.len());
        request.clear();
        write!(
            request,
            "GET {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\n\r\n",
            plan.paths[path]
        )?;
        let status = match exchange(plan.target, &mut stream, &request, &mut answer).await {
            Ok(status) => status,
            Err(_) => {
                stream = None;
                // The server is away: do not spin.
                tokio::time::sleep(Duration::from_millis(20)).await;
                0
            }
        };
        seen.statuses[usize::from(status).min(599)] += 1;
        if (200..300).contains(&status) {
            seen.latency.saturating_record(meant.elapsed().as_micros() as u64);
            if plan.keep {
                seen.acknowledged.push(path);
            }
        }
        meant = match plan.pace {
            Some(pace) => {
                let next = meant + pace;
                tokio::time::sleep_until(next.into()).await;
                next
            }
            None => Instant::now(),
        };
    }
    Ok(seen)
}

/// Sends one request and reads its answer; returns the status.
async fn exchange(
    target: SocketAddr,
    stream: &mut Option<TcpStream>,
    request: &[u8],
    answer: &mut [u8],
) -> anyhow::Result<u16> {
    let stream = match stream {
        Some(stream) => stream,
        None => {
            let fresh = TcpStream::connect(target).await?;
            fresh.set_nodelay(true)?;
            stream.insert(fresh)
        }
    };
    stream.write_all(request).await?;
    let mut have = 0;
    loop {
        let read = stream.read(&mut answer[have..]).await?;
        anyhow::ensure!(read > 0, "the connection was closed");
        have += read;
        let seen = &answer[..have];
        if let Some(head) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = content_length(&seen[..head]);
            if have >= head + 4 + body {
                let status = std::str::from_utf8(&seen[9..12])?.parse()?;
                return Ok(status);
            }
        }
        anyhow::ensure!(have < answer.len(), "the answer is too long");
    }
}

fn content_length(head: &[u8]) -> usize {
    let name = b"content-length: ";
    let Some(at) = head
        .windows(name.len())
        .position(|window| window.eq_ignore_ascii_case(name))
    else {
        return 0;
    };
    head[at + name.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'))
}
