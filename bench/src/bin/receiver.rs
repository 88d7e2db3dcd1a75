//! A receiver of webhooks: answers 200 and measures how late each alert is, from the deadline that its payload names.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use actix_web::web::{Bytes, Data, PayloadConfig};
use actix_web::{App, HttpResponse, HttpServer, web};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Takes webhooks; `GET /figures` answers the figures and resets them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
}

/// The webhooks since the last request for figures.
struct Arrivals {
    count: u64,
    without_deadline: u64,
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
    /// Milliseconds from the deadline to the arrival.
    lateness: Histogram<u64>,
}

impl Arrivals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            count: 0,
            without_deadline: 0,
            first: None,
            last: None,
            lateness: Histogram::new_with_bounds(1, 3_600_000, 3)?,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "lateness is measured by the machine's clock"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

async fn take(seen: Data<Mutex<Arrivals>>, body: Bytes) -> HttpResponse {
    let now = now();
    let deadline = serde_json::from_slice::<Value>(&body).ok().and_then(|payload| {
        let due: DateTime<Utc> = payload.pointer("/monitor/next_due_at")?.as_str()?.parse().ok()?;
        let grace = payload.pointer("/monitor/grace_seconds")?.as_f64()?;
        Some(due + TimeDelta::milliseconds((grace * 1_000.0) as i64))
    });
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.count += 1;
    seen.first.get_or_insert(now);
    seen.last = Some(now);
    match deadline {
        Some(deadline) => {
            let late = (now - deadline).num_milliseconds().max(0);
            seen.lateness.saturating_record(late.unsigned_abs());
        }
        None => seen.without_deadline += 1,
    }
    HttpResponse::Ok().finish()
}

async fn figures(seen: Data<Mutex<Arrivals>>) -> actix_web::Result<HttpResponse> {
    let fresh = Arrivals::new().map_err(actix_web::error::ErrorInternalServerError)?;
    let seen = std::mem::replace(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner), fresh);
    let seconds = seen.last.zip(seen.first).map(|(last, first)| last - first);
    Ok(HttpResponse::Ok().json(json!({
        "count": seen.count,
        "without_deadline": seen.without_deadline,
        "seconds": seconds.map(|span| span.num_milliseconds() as f64 / 1_000.0),
        "p50_ms": seen.lateness.value_at_quantile(0.5),
        "p99_ms": seen.lateness.value_at_quantile(0.99),
        "max_ms": seen.lateness.max(),
    })))
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seen = Data::new(Mutex::new(Arrivals::new()?));
    HttpServer::new(move || {
        App::new()
            .app_data(seen.clone())
            .app_data(PayloadConfig::new(1_000_000))
            .route("/figures", web::get().to(figures))
            .default_service(web::to(take))
    })
    .workers(1)
    .bind(arguments.listen)?
    .run()
    .await?;
    Ok(())
}
