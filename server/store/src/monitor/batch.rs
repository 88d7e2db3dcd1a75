//! The statements that write a batch: pings, bodies, runs and monitors' states, as arrays.
//!
//! This module writes every change of a monitor's state, under the monitors' locks. Ingest writes with pings; the
//! evaluator and a person's change write without.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::MonitorKey;
use deadbeat_domain::monitor::MonitorState;
use deadbeat_domain::monitor::baseline::Baseline;
use deadbeat_domain::monitor::run::Run;
use uuid::Uuid;

use crate::monitor::alarm;
use crate::monitor::ping::NewPing;
use crate::{StoreResult, Tx};

/// The changes of one transaction.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Pings to append.
    pub pings: Vec<NewPing<'a>>,
    /// Runs that were opened, changed or closed.
    pub runs: Vec<(MonitorKey, Run)>,
    /// The monitors whose state changed, each once ([`crate::monitor::Stateful::changed`]). Their runs must be loaded,
    /// because the number of open runs is written, too.
    pub monitors: Vec<(MonitorKey, &'a MonitorState)>,
    /// True: set `check_after` to the instant at which the monitor must be judged. A sweep moves it later, and so may
    /// any caller that is not in a hurry. False: change it only if it lies after that instant. That keeps a ping's
    /// update HOT.
    pub moves_check: bool,
    /// The writer that commits this batch, and the batch's number.
    pub writer: Option<(Uuid, u64)>,
}

/// Writes a batch. The caller holds the monitors' locks.
///
/// # Errors
/// When the database is away.
pub async fn write(tx: &mut Tx, batch: &Batch<'_>) -> StoreResult<()> {
    let pings = &batch.pings;
    let bodies: Vec<&NewPing> = pings.iter().filter(|ping| !ping.body.is_empty()).collect();
    // Write closed runs first. A run id that is used again frees its place among the open runs before it takes one
    // again.
    let mut runs: Vec<&(MonitorKey, Run)> = batch.runs.iter().collect();
    runs.sort_by_key(|(_, run)| run.is_open());
    let monitors = &batch.monitors;
    let learned: Vec<(MonitorKey, Baseline)> = monitors
        .iter()
        .filter_map(|(key, state)| Some((*key, state.baseline?)))
        .collect();

    // Most pings have no body, and most batches have few runs. Do not touch tables that do not change.
    if !(bodies.is_empty() && runs.is_empty()) {
        sqlx::query!(
            r#"
            WITH new_body AS (
                INSERT INTO ping_body (monitor_id, n, body, received_at, project_id)
                SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::bytea[], $4::timestamptz[], $34::uuid[])
            ), learned AS (
                UPDATE baseline
                SET runs = new.runs, usual = new.usual, shortest = new.shortest, longest = new.longest, odd = new.odd
                FROM UNNEST($19::uuid[], $20::int4[], $21::float8[], $22::float8[], $23::float8[], $29::int4[], $36::uuid[])
                    AS new (monitor_id, runs, usual, shortest, longest, odd, project_id)
                WHERE baseline.monitor_id = new.monitor_id AND baseline.project_id = new.project_id AND (baseline.runs, baseline.odd) <> (new.runs, new.odd)
            )
            INSERT INTO run (id, monitor_id, run_id, status, started_at, finished_at, deadline_at, duration_ms, exit_code, task, task_id,
                worker, retries, error, outcome, attempt, attempts, contest, events, incarnation, acks_late, orphaned, orphaned_at,
                project_id, ended_at)
            SELECT id, monitor_id, run_id, status, started_at, finished_at, deadline_at, duration_ms, exit_code, task, task_id, worker,
                retries, error, outcome, attempt, attempts, contest, events::uuid[], incarnation, acks_late, orphaned, orphaned_at, project_id, ended_at
            FROM UNNEST($5::uuid[], $6::uuid[], $7::uuid[], $8::text[], $9::timestamptz[], $10::timestamptz[],
                $11::timestamptz[], $12::int8[], $13::int2[], $14::text[], $15::text[], $16::text[], $17::int4[], $18::text[],
                $24::text[], $25::uuid[], $26::int4[], $27::text[], $28::text[], $30::uuid[], $31::bool[], $32::text[],
                $33::timestamptz[], $35::uuid[], $37::timestamptz[])
                AS new (id, monitor_id, run_id, status, started_at, finished_at, deadline_at, duration_ms, exit_code, task, task_id, worker,
                    retries, error, outcome, attempt, attempts, contest, events, incarnation, acks_late, orphaned, orphaned_at, project_id, ended_at)
            ON CONFLICT (monitor_id, id, project_id) DO UPDATE
            SET status = excluded.status, started_at = excluded.started_at, finished_at = excluded.finished_at,
                deadline_at = excluded.deadline_at, duration_ms = excluded.duration_ms, exit_code = excluded.exit_code,
                task = excluded.task, task_id = excluded.task_id, worker = excluded.worker, retries = excluded.retries,
                error = excluded.error, outcome = excluded.outcome, attempt = excluded.attempt, attempts = excluded.attempts,
                contest = excluded.contest, events = excluded.events, incarnation = excluded.incarnation,
                acks_late = excluded.acks_late, orphaned = excluded.orphaned, orphaned_at = excluded.orphaned_at,
                ended_at = excluded.ended_at
            "#,
            &column(&bodies, |ping| ping.monitor_id.0),
            &column(&bodies, |ping| ping.n),
            &column(&bodies, |ping| ping.body) as &[&[u8]],
            &column(&bodies, |ping| ping.received_at),
            &column(&runs, |(_, run)| run.key.0),
            &column(&runs, |((_, monitor), _)| monitor.0),
            &column(&runs, |(_, run)| run.run_id) as &[Option<Uuid>],
            &column(&runs, |(_, run)| run.status.as_str()) as &[&str],
            &column(&runs, |(_, run)| run.started_at) as &[Option<DateTime<Utc>>],
            &column(&runs, |(_, run)| run.finished_at) as &[Option<DateTime<Utc>>],
            &column(&runs, |(_, run)| run.deadline_at) as &[Option<DateTime<Utc>>],
            &column(&runs, |(_, run)| run.duration.map(|length| length.num_milliseconds())) as &[Option<i64>],
            &column(&runs, |(_, run)| run.exit_code.map(i16::from)) as &[Option<i16>],
            &column(&runs, |(_, run)| run.detail.task.as_deref()) as &[Option<&str>],
            &column(&runs, |(_, run)| run.detail.task_id.as_deref()) as &[Option<&str>],
            &column(&runs, |(_, run)| run.detail.worker.as_deref()) as &[Option<&str>],
            &column(&runs, |(_, run)| run.detail.retries),
            &column(&runs, |(_, run)| run.detail.error.as_deref()) as &[Option<&str>],
            &column(&learned, |((_, id), _)| id.0),
            &column(&learned, |(_, baseline)| baseline.runs),
            &column(&learned, |(_, baseline)| baseline.usual),
            &column(&learned, |(_, baseline)| baseline.shortest),
            &column(&learned, |(_, baseline)| baseline.longest),
            &column(&runs, |(_, run)| run.detail.outcome.map(|outcome| outcome.as_str())) as &[Option<&str>],
            &column(&runs, |(_, run)| run.detail.attempt) as &[Option<Uuid>],
            &column(&runs, |(_, run)| run.attempts),
            &column(&runs, |(_, run)| run.contest.map(|contest| contest.as_str())) as &[Option<&str>],
            &column(&runs, |(_, run)| uuid_array(&run.events)),
            &column(&learned, |(_, baseline)| baseline.odd),
            &column(&runs, |(_, run)| run.detail.incarnation) as &[Option<Uuid>],
            &column(&runs, |(_, run)| run.detail.acks_late),
            &column(&runs, |(_, run)| run.orphan.map(|orphan| orphan.how.as_str())) as &[Option<&str>],
            &column(&runs, |(_, run)| run.orphan.map(|orphan| orphan.since)) as &[Option<DateTime<Utc>>],
            &column(&bodies, |ping| ping.project_id.0),
            &column(&runs, |((project, _), _)| project.0),
            &column(&learned, |((project, _), _)| project.0),
            &column_of_some(&runs, |(_, run)| run.ended_at) as &[Option<DateTime<Utc>>],
        )
        .execute(tx.conn())
        .await?;
    }
    sqlx::query!(
        r#"
        WITH new_ping AS (
            INSERT INTO ping (monitor_id, n, received_at, kind, run_id, exit_code, source, method, remote_addr, user_agent, body_bytes,
                project_id)
            SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::timestamptz[], $4::text[], $5::uuid[], $6::int2[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::int4[], $28::uuid[])
        ), place AS (
            INSERT INTO writer (id, position)
            SELECT $23, $24 WHERE $23::uuid IS NOT NULL
            ON CONFLICT (id) DO UPDATE SET position = greatest(writer.position, excluded.position)
        )
        UPDATE monitor
        SET status = new.status, ping_count = new.ping_count, last_ping_at = new.last_ping_at, last_success_at = new.last_success_at,
            last_duration_ms = new.last_duration_ms, open_runs = new.open_runs, next_due_at = new.next_due_at,
            hinted_due_at = new.hinted_due_at, postponed_from = new.postponed_from, deadline_at = new.deadline_at,
            decided_at = new.decided_at, plain_end_at = new.plain_end_at,
            hold_until = new.hold_until, alarm = new.alarm, streak = new.streak, streak_since = new.streak_since,
            opened_lately = new.opened_lately::timestamptz[], flapping_since = new.flapping_since, calm_at = new.calm_at,
            check_after = CASE
                WHEN $22 THEN new.swept_at
                WHEN new.swept_at IS NULL THEN monitor.check_after
                ELSE least(monitor.check_after, new.swept_at)
            END
        FROM UNNEST($12::uuid[], $13::text[], $14::int8[], $15::timestamptz[], $16::timestamptz[], $17::int8[], $18::int4[],
            $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $25::timestamptz[], $26::timestamptz[], $27::timestamptz[],
            $29::uuid[], $30::timestamptz[], $31::text[], $32::int2[], $33::timestamptz[], $34::text[], $35::timestamptz[],
            $36::timestamptz[], $37::timestamptz[])
            AS new (id, status, ping_count, last_ping_at, last_success_at, last_duration_ms, open_runs, next_due_at, hinted_due_at,
                deadline_at, postponed_from, decided_at, plain_end_at, project_id, hold_until, alarm, streak, streak_since,
                opened_lately, flapping_since, calm_at, swept_at)
        WHERE monitor.id = new.id AND monitor.project_id = new.project_id
        "#,
        &column(pings, |ping| ping.monitor_id.0),
        &column(pings, |ping| ping.n),
        &column(pings, |ping| ping.received_at),
        &column(pings, |ping| ping.kind.as_str()) as &[&str],
        &column(pings, |ping| ping.run_id) as &[Option<Uuid>],
        &column(pings, |ping| ping.exit_code.map(i16::from)) as &[Option<i16>],
        &column(pings, |ping| ping.source.as_str()) as &[&str],
        &column(pings, |ping| ping.method.as_deref()) as &[Option<&str>],
        &column(pings, |ping| ping.remote_addr.as_deref()) as &[Option<&str>],
        &column(pings, |ping| ping.user_agent.as_deref()) as &[Option<&str>],
        &column(pings, |ping| i32::try_from(ping.body.len()).unwrap_or(i32::MAX)),
        &column(monitors, |((_, id), _)| id.0),
        &column(monitors, |(_, state)| state.status.as_str()) as &[&str],
        &column(monitors, |(_, state)| state.ping_count),
        &column(monitors, |(_, state)| state.last_ping_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.last_success_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.last_duration.map(|length| length.num_milliseconds())) as &[Option<i64>],
        &column(monitors, |(_, state)| i32::try_from(state.open_runs()).unwrap_or(i32::MAX)),
        &column(monitors, |(_, state)| state.next_due_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.hinted_due_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.deadline_at) as &[Option<DateTime<Utc>>],
        batch.moves_check,
        batch.writer.map(|(id, _)| id),
        batch.writer.map(|(_, position)| i64::try_from(position).unwrap_or(i64::MAX)),
        &column(monitors, |(_, state)| state.postponed_from) as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.decided_at) as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.plain_end_at) as &[Option<DateTime<Utc>>],
        &column(pings, |ping| ping.project_id.0),
        &column(monitors, |((project, _), _)| project.0),
        // The last release may remove a deadline and leave the hold. The evaluator would claim a monitor with a hold and no deadline forever.
        &column_of_some(monitors, |(_, state)| state.hold_until.filter(|_| state.deadline_at.is_some()))
            as &[Option<DateTime<Utc>>],
        &column_of_some(monitors, |(_, state)| alarm::kind(state.alarm)) as &[Option<&str>],
        &column_of_some(monitors, |(_, state)| alarm::streak(state.alarm).map(|streak| alarm::small(streak.runs)))
            as &[Option<i16>],
        &column_of_some(monitors, |(_, state)| alarm::streak(state.alarm).map(|streak| streak.since))
            as &[Option<DateTime<Utc>>],
        &column_of_some(monitors, |(_, state)| alarm::openings(&state.flaps)) as &[Option<String>],
        &column_of_some(monitors, |(_, state)| state.flaps.flapping.map(|flapping| flapping.since))
            as &[Option<DateTime<Utc>>],
        &column_of_some(monitors, |(_, state)| state.flaps.flapping.map(|flapping| flapping.calm_at))
            as &[Option<DateTime<Utc>>],
        &column(monitors, |(_, state)| state.swept_at()) as &[Option<DateTime<Utc>>],
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns an array in PostgreSQL's text form. An array of arrays is no alternative: PostgreSQL requires it to be
/// rectangular.
fn uuid_array(ids: &[Uuid]) -> String {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    format!("{{{}}}", ids.join(","))
}

/// Returns a column, or an empty one if no row has a value. `UNNEST` pads it with NULL, so most batches send no value for it.
fn column_of_some<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> Option<T>) -> Vec<Option<T>> {
    let values: Vec<Option<T>> = rows.iter().map(value).collect();
    if values.iter().all(Option::is_none) {
        return Vec::new();
    }
    values
}

/// Returns one column of rows, as an argument for a statement over arrays.
pub(crate) fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
