//! `/metrics`: Prometheus text.

use std::sync::atomic::Ordering;

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use chrono::TimeDelta;
use prometheus::{
    Counter, Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use deadbeat_domain::alert::delivery::Reason;
use deadbeat_domain::schedule::zone;
use deadbeat_services::operation::duty::Report;
use deadbeat_services::operation::retention;

use crate::operation::health::operation;
use crate::state::AppState;

/// Mounts the route.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        operation("/metrics")
            .route(web::get().to(show))
            .route(web::head().to(show)),
    );
}

/// Returns the metrics. The loops keep their own counters; each scrape copies them into a new registry.
async fn show(state: Data<AppState>) -> HttpResponse {
    match text(&state).await {
        Ok(text) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Adds the metrics of all loops, which have the same form.
fn show_duties(registry: &Registry, duties: &[Report]) -> prometheus::Result<()> {
    type Figure = fn(&Report) -> Option<f64>;
    let gauges: [(&str, &str, Figure); 4] = [
        ("deadbeat_loop_works", "1 if the loop works.", |one| {
            Some(f64::from(u8::from(one.works)))
        }),
        (
            "deadbeat_loop_last_success_age_seconds",
            "Seconds since a turn of the loop last succeeded.",
            |one| one.last_success_age.map(|age| age.as_secs_f64()),
        ),
        (
            "deadbeat_loop_lag_seconds",
            "How late the last turn of the loop was, in seconds.",
            |one| one.lag.map(|lag| lag.as_secs_f64()),
        ),
        (
            "deadbeat_loop_backlog",
            "Items left to do after the last turn of the loop.",
            |one| one.backlog.map(|backlog| backlog as f64),
        ),
    ];
    for (name, help, figure) in gauges {
        let family = GaugeVec::new(Opts::new(name, help), &["loop"])?;
        for one in duties {
            if let Some(value) = figure(one) {
                family.with_label_values(&[&one.name]).set(value);
            }
        }
        registry.register(Box::new(family))?;
    }
    let failures = Opts::new(
        "deadbeat_loop_failures_total",
        "Failed turns of the loop, including panics.",
    );
    let failures = IntCounterVec::new(failures, &["loop"])?;
    for one in duties {
        failures.with_label_values(&[&one.name]).inc_by(one.failures);
    }
    registry.register(Box::new(failures))
}

async fn text(state: &AppState) -> prometheus::Result<Vec<u8>> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: i64| -> prometheus::Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))
    };
    let counter = |name: &str, help: &str, value: u64| -> prometheus::Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        registry.register(Box::new(counter))
    };

    gauge(
        "deadbeat_secret_keys_missing",
        "Encryption keys of channels that this process does not have.",
        i64::try_from(state.services.keyring().missing().len()).unwrap_or(i64::MAX),
    )?;
    let ingest = state.services.ingest();
    let figures = ingest.figures();
    counter(
        "deadbeat_pings_recorded_total",
        "Pings written.",
        figures.recorded.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_pings_unknown_total",
        "Pings whose URL belongs to no monitor.",
        figures.unknown.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_pings_refused_total",
        "Pings refused with \"try again\".",
        figures.refused.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_pings_limited_total",
        "Pings not recorded, because their sender has used up its quota.",
        figures.limited.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_ingest_batches_total",
        "Transactions of the writer.",
        figures.batches.load(Ordering::Relaxed),
    )?;
    gauge(
        "deadbeat_ingest_waiting",
        "Pings that wait for the writer.",
        i64::try_from(ingest.waiting()).unwrap_or(i64::MAX),
    )?;

    counter(
        "deadbeat_pings_spooled_total",
        "Pings written to the spool because the database could not take them.",
        figures.spooled.load(Ordering::Relaxed),
    )?;
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    gauge(
        "deadbeat_spool_pings",
        "Pings in the spool that are not in the database yet.",
        whole(ingest.spooled()),
    )?;
    gauge(
        "deadbeat_spool_bytes",
        "Size of the pings in the spool that are not in the database yet.",
        whole(ingest.spooled_bytes()),
    )?;
    gauge(
        "deadbeat_spool_oldest_age_seconds",
        "Age of the oldest ping in the spool.",
        ingest
            .oldest_spooled()
            .map_or(0, |at| (state.now() - at).num_seconds().max(0)),
    )?;
    counter(
        "deadbeat_pings_set_aside_total",
        "Pings that were set aside because they could not be written while others could.",
        figures.set_aside.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_ping_panics_total",
        "Panics of a writer while it wrote a single ping.",
        figures.panicked.load(Ordering::Relaxed),
    )?;
    gauge(
        "deadbeat_pings_aside",
        "Pings that are set aside: acknowledged, and retried at a bounded pace.",
        i64::try_from(ingest.aside()).unwrap_or(i64::MAX),
    )?;
    gauge(
        "deadbeat_registry_pings",
        "Ping URLs in the registry.",
        i64::try_from(ingest.known()).unwrap_or(i64::MAX),
    )?;

    let zones = Opts::new(
        "deadbeat_time_zone_database_info",
        "The release of the IANA database in use, and where it comes from.",
    );
    let zones = IntGauge::with_opts(
        zones
            .const_label("release", zone::database_version())
            .const_label("origin", zone::data::origin().as_str()),
    )?;
    zones.set(1);
    registry.register(Box::new(zones))?;

    let traces = state.services.traces();
    let figures = traces.figures();
    counter(
        "deadbeat_stages_recorded_total",
        "Stages of runs written.",
        figures.recorded.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_stages_refused_total",
        "Stages of runs refused with \"try again\".",
        figures.refused.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_trace_batches_total",
        "Transactions of the writer of traces.",
        figures.batches.load(Ordering::Relaxed),
    )?;
    counter(
        "deadbeat_stage_panics_total",
        "Panics of the writer of traces while it wrote stages of a single request.",
        figures.panicked.load(Ordering::Relaxed),
    )?;
    gauge(
        "deadbeat_trace_waiting",
        "Stages of runs that wait for their writer.",
        i64::try_from(traces.waiting()).unwrap_or(i64::MAX),
    )?;

    let deliveries = &state.deliveries;
    counter(
        "deadbeat_deliveries_sent_total",
        "Deliveries that their receivers accepted.",
        deliveries.sent(),
    )?;
    counter(
        "deadbeat_deliveries_retried_total",
        "Attempts that failed and were scheduled for a retry.",
        deliveries.retried(),
    )?;
    let failed = Opts::new("deadbeat_attempts_failed_total", "Attempts that did not succeed.");
    let counters = IntCounterVec::new(failed, &["reason"])?;
    for reason in Reason::ALL {
        counters
            .with_label_values(&[reason.as_str()])
            .inc_by(deliveries.failed(reason));
    }
    registry.register(Box::new(counters))?;
    counter(
        "deadbeat_deliveries_dead_total",
        "Deliveries that Deadbeat gave up.",
        deliveries.dead(),
    )?;
    counter(
        "deadbeat_deliveries_put_aside_total",
        "Deliveries that were put aside because their rows could not be read.",
        deliveries.put_aside(),
    )?;

    let now = state.now();
    let seconds = |span: TimeDelta| span.num_seconds().max(0);
    let selfwatch = state.services.selfwatch();
    if let Some(at) = selfwatch.last_sweep_at() {
        gauge(
            "deadbeat_evaluator_last_sweep_age_seconds",
            "Seconds since the last sweep of this process ended.",
            seconds(now - at),
        )?;
    }
    if let Some(at) = deliveries.last_pass_at() {
        gauge(
            "deadbeat_delivery_last_pass_age_seconds",
            "Seconds since this process last read the outbox.",
            seconds(now - at),
        )?;
    }
    counter(
        "deadbeat_evaluator_rows_put_aside_total",
        "Rows that the evaluator put aside because it could not read them.",
        selfwatch.rows_put_aside(),
    )?;
    counter(
        "deadbeat_incidents_unreadable_total",
        "Incidents that ended without an alert because they could not be read.",
        deadbeat_services::incident::unreadable(),
    )?;
    counter(
        "deadbeat_evaluator_found_silent_total",
        "Monitors and Beats that this process found silent.",
        selfwatch.found_silent(),
    )?;
    let sweeps = selfwatch.sweeps();
    counter("deadbeat_sweep_seconds_count", "Completed sweeps.", sweeps.count)?;
    let spent = Counter::new("deadbeat_sweep_seconds_sum", "Time spent in sweeps.")?;
    spent.inc_by(sweeps.spent.as_secs_f64());
    registry.register(Box::new(spent))?;
    counter(
        "deadbeat_sweep_rows_total",
        "Rows that sweeps examined.",
        sweeps.rows,
    )?;
    if let Some(at) = deliveries.last_success_at() {
        gauge(
            "deadbeat_delivery_last_success_age_seconds",
            "Seconds since a receiver last accepted a delivery.",
            seconds(now - at),
        )?;
    }
    let removed = selfwatch.retention();
    type Figure = fn(&retention::Count) -> u64;
    let by_kind: [(&str, &str, Figure); 3] = [
        (
            "deadbeat_retention_removed_total",
            "Rows that the retention removed.",
            retention::Count::removed,
        ),
        (
            "deadbeat_retention_steps_total",
            "Transactions of the retention.",
            retention::Count::steps,
        ),
        (
            "deadbeat_retention_failures_total",
            "Failed transactions of the retention.",
            retention::Count::failures,
        ),
    ];
    for (name, help, figure) in by_kind {
        let counters = IntCounterVec::new(Opts::new(name, help), &["kind"])?;
        for kind in retention::Kind::ALL {
            counters
                .with_label_values(&[kind.as_str()])
                .inc_by(figure(removed.of(kind)));
        }
        registry.register(Box::new(counters))?;
    }
    if let Some(at) = removed.last_pass_at() {
        gauge(
            "deadbeat_retention_last_pass_age_seconds",
            "Seconds since a pass of the retention last ended without a failure.",
            seconds(now - at),
        )?;
    }
    show_duties(&registry, &selfwatch.duties().reports())?;
    let readiness = selfwatch.readiness(&state.reader(), now).await;
    gauge(
        "deadbeat_loops_failed",
        "Broken loops of this process that signals depend on.",
        i64::try_from(readiness.failed_loops.len()).unwrap_or(i64::MAX),
    )?;
    let pulse = readiness.pulse;
    if let Some(pulse) = pulse {
        gauge(
            "deadbeat_deployment_judging",
            "1 if some process judges missed deadlines.",
            i64::from(readiness.is_judging(now)),
        )?;
        gauge(
            "deadbeat_lost_listeners",
            "Listeners that fell silent without signing off, and for which judgement waits.",
            pulse.reception.lost,
        )?;
    }
    if let Some(at) = pulse.and_then(|pulse| pulse.last_sweep_at) {
        gauge(
            "deadbeat_deployment_last_sweep_age_seconds",
            "Seconds since any process last completed a sweep.",
            seconds(now - at),
        )?;
    }
    let backlog = selfwatch.backlog(&state.reader(), now).await;
    gauge(
        "deadbeat_database_up",
        "1 if the database answers.",
        i64::from(backlog.is_some()),
    )?;
    if let Some(backlog) = backlog {
        let age = |at: Option<chrono::DateTime<chrono::Utc>>| at.map_or(0, |at| seconds(now - at));
        gauge(
            "deadbeat_evaluator_lag_seconds",
            "Age of the oldest passed deadline that no sweep has examined.",
            age(backlog.oldest_check),
        )?;
        gauge(
            "deadbeat_outbox_pending",
            "Deliveries that are due and not settled.",
            backlog.pending_deliveries,
        )?;
        gauge(
            "deadbeat_outbox_held",
            "Deliveries that a delay, quiet hours, a maintenance window or a snooze holds.",
            backlog.held_deliveries,
        )?;
        gauge(
            "deadbeat_outbox_oldest_age_seconds",
            "Age of the oldest unsettled delivery, from the time at which it first became due.",
            age(backlog.oldest_delivery),
        )?;
        gauge(
            "deadbeat_outbox_lag_seconds",
            "The longest time for which a delivery has been due without an attempt.",
            age(backlog.overdue_delivery),
        )?;
        gauge(
            "deadbeat_incidents_open",
            "Incidents that are open.",
            backlog.open_incidents,
        )?;
    }

    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
