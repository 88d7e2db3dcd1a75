//! Statistics of each task's runs, from table `trace`.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::trace::Outcome;
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::limits::{TASK_RUNS_EXAMINED, TASKS_SHOWN};

use crate::{Reader, StoreResult};

/// The statistics of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskStats {
    /// The task's name. None: no report of these runs named it.
    pub task: Option<String>,
    /// The number of runs that were read.
    pub runs: i64,
    /// The number of these runs that have ended.
    pub ended: i64,
    /// The number of these runs that failed.
    pub failed: i64,
    /// Half of the runs waited this long at most, in seconds.
    pub wait_p50: Option<f64>,
    /// 95 % of the runs waited this long at most.
    pub wait_p95: Option<f64>,
    /// Half of the runs took this long at most, in seconds.
    pub run_p50: Option<f64>,
    /// 95 % of the runs took this long at most.
    pub run_p95: Option<f64>,
    /// When the newest run's first report came.
    pub last_heard_first_at: DateTime<Utc>,
}

impl TaskStats {
    /// Returns the share of ended runs that failed. None: no run has ended.
    #[must_use]
    pub fn failure_ratio(&self) -> Option<f64> {
        (self.ended > 0).then(|| self.failed as f64 / self.ended as f64)
    }
}

/// The statistics of a stretch of time, task by task.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// The tasks, those with the most runs first.
    pub tasks: Vec<TaskStats>,
    /// When the stretch begins.
    pub from: DateTime<Utc>,
    /// When it ends.
    pub to: DateTime<Utc>,
    /// The number of runs that were read.
    pub examined: i64,
}

impl Tasks {
    /// Returns the length of the stretch up to `now`, in minutes. Never 0.
    #[must_use]
    pub fn minutes(&self, now: DateTime<Utc>) -> f64 {
        let covered = self.to.min(now) - self.from;
        (covered.num_milliseconds() as f64 / 60_000.0).max(1.0 / 60.0)
    }
}

/// Returns statistics of the tasks of a project's newest runs in a stretch: at most [`TASK_RUNS_EXAMINED`] runs and [`TASKS_SHOWN`] tasks.
///
/// # Errors
/// When the database is away.
pub async fn tasks(
    reader: &Reader,
    project: ProjectId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> StoreResult<Tasks> {
    let failures: Vec<String> = Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_failure())
        .map(|outcome| outcome.as_str().to_owned())
        .collect();
    let rows = sqlx::query!(
        r#"
        WITH seen AS MATERIALIZED (
            SELECT task, state, wait_seconds, run_seconds, heard_first_at
            FROM trace
            WHERE project_id = $1 AND heard_first_at >= $2 AND heard_first_at < $3
            ORDER BY heard_first_at DESC
            LIMIT $4
        )
        SELECT task, count(*) AS "runs!", count(*) FILTER (WHERE state NOT IN ('published', 'received', 'started', 'retried')) AS "ended!",
            count(*) FILTER (WHERE state = ANY($5)) AS "failed!",
            percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_seconds) AS wait_p50,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY wait_seconds) AS wait_p95,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY run_seconds) AS run_p50,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY run_seconds) AS run_p95,
            max(heard_first_at) AS "last_heard_first_at!",
            (SELECT count(*) FROM seen) AS "seen!", (SELECT min(heard_first_at) FROM seen) AS oldest
        FROM seen
        GROUP BY task
        ORDER BY count(*) DESC, task
        LIMIT $6
        "#,
        project.0,
        from,
        to,
        TASK_RUNS_EXAMINED,
        &failures,
        TASKS_SHOWN
    )
    .fetch_all(reader.pool())
    .await?;
    let (examined, oldest) = rows.first().map_or((0, None), |row| (row.seen, row.oldest));
    let tasks = rows
        .into_iter()
        .map(|row| TaskStats {
            task: row.task,
            runs: row.runs,
            ended: row.ended,
            failed: row.failed,
            wait_p50: row.wait_p50,
            wait_p95: row.wait_p95,
            run_p50: row.run_p50,
            run_p95: row.run_p95,
            last_heard_first_at: row.last_heard_first_at,
        })
        .collect();
    Ok(Tasks {
        tasks,
        from: oldest.filter(|_| examined >= TASK_RUNS_EXAMINED).unwrap_or(from),
        to,
        examined,
    })
}
