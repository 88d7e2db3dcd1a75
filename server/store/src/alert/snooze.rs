//! Table `snooze`: snoozes and mutes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::hold::{Hold, Scope, Time};
use deadbeat_domain::ids::{MonitorId, MonitorKey, ProjectId, SnoozeId};
use deadbeat_domain::people::access::Actor;
use uuid::Uuid;

use crate::monitor::batch::column;
use crate::page::Page;
use crate::people::creator;
use crate::{Reader, StoreResult, Tx};

/// The target of a snooze or mute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The whole project.
    Project,
    /// A monitor.
    Monitor(MonitorId),
    /// Every monitor with this tag.
    Tag(String),
}

impl Target {
    fn columns(&self) -> (Option<Uuid>, Option<&str>) {
        match self {
            Self::Project => (None, None),
            Self::Monitor(id) => (Some(id.0), None),
            Self::Tag(tag) => (None, Some(tag)),
        }
    }
}

/// A snooze or mute as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snooze {
    /// Its id.
    pub id: SnoozeId,
    /// Its target.
    pub target: Target,
    /// When it ends. None: it is a mute, which ends when a person ends it.
    pub ends_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it: `account`, `key`, `operator` or `system`.
    pub created_by_kind: String,
    /// The account or key.
    pub created_by_id: Option<Uuid>,
}

struct Row {
    id: Uuid,
    monitor_id: Option<Uuid>,
    tag: Option<String>,
    ends_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    created_by_kind: String,
    created_by_id: Option<Uuid>,
}

impl From<Row> for Snooze {
    fn from(row: Row) -> Self {
        Self {
            id: SnoozeId(row.id),
            target: match (row.monitor_id, row.tag) {
                (Some(id), _) => Target::Monitor(MonitorId(id)),
                (None, Some(tag)) => Target::Tag(tag),
                (None, None) => Target::Project,
            },
            ends_at: row.ends_at,
            created_at: row.created_at,
            created_by_kind: row.created_by_kind,
            created_by_id: row.created_by_id,
        }
    }
}

/// Returns the snooze (or the mute) of a target. The caller holds the project's lock
/// ([`crate::people::project::lock_rules`]).
///
/// # Errors
/// When the database is away.
pub async fn find(
    tx: &mut Tx,
    project: ProjectId,
    target: &Target,
    is_mute: bool,
) -> StoreResult<Option<Snooze>> {
    let (monitor, tag) = target.columns();
    let row = sqlx::query_as!(
        Row,
        "SELECT id, monitor_id, tag, ends_at, created_at, created_by_kind, created_by_id
        FROM snooze
        WHERE project_id = $1 AND monitor_id IS NOT DISTINCT FROM $2 AND tag IS NOT DISTINCT FROM $3 AND (ends_at IS NULL) = $4",
        project.0,
        monitor,
        tag,
        is_mute
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Snooze::from))
}

/// Writes a snooze or mute, in place of the target's other one of that kind. False: the project has no such monitor. The caller holds the project's
/// lock.
///
/// # Errors
/// When the database is away.
pub async fn replace(
    tx: &mut Tx,
    project: ProjectId,
    target: &Target,
    ends_at: Option<DateTime<Utc>>,
    by: Actor,
    now: DateTime<Utc>,
) -> StoreResult<bool> {
    remove(tx, project, target, ends_at.is_none()).await?;
    let (monitor, tag) = target.columns();
    let (kind, id) = creator(by);
    let done = sqlx::query!(
        "INSERT INTO snooze (id, project_id, monitor_id, tag, ends_at, created_at, created_by_kind, created_by_id)
        SELECT $1, $2, $3::uuid, $4, $5, $6, $7, $8
        WHERE $3::uuid IS NULL OR EXISTS (SELECT FROM monitor WHERE project_id = $2 AND id = $3)",
        SnoozeId::generate().0,
        project.0,
        monitor,
        tag,
        ends_at,
        now,
        kind,
        id
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the snooze (or the mute) of a target. False: there was none.
///
/// # Errors
/// When the database is away.
pub async fn remove(tx: &mut Tx, project: ProjectId, target: &Target, is_mute: bool) -> StoreResult<bool> {
    let (monitor, tag) = target.columns();
    let done = sqlx::query!(
        "DELETE FROM snooze
        WHERE project_id = $1 AND monitor_id IS NOT DISTINCT FROM $2 AND tag IS NOT DISTINCT FROM $3 AND (ends_at IS NULL) = $4",
        project.0,
        monitor,
        tag,
        is_mute
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a snooze or mute by its id. None: the project has none of that id.
///
/// # Errors
/// When the database is away.
pub async fn delete(tx: &mut Tx, project: ProjectId, id: SnoozeId) -> StoreResult<Option<(Target, bool)>> {
    let row = sqlx::query_as!(
        Row,
        "DELETE FROM snooze WHERE project_id = $1 AND id = $2
        RETURNING id, monitor_id, tag, ends_at, created_at, created_by_kind, created_by_id",
        project.0,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(Snooze::from).map(|snooze| {
        let is_mute = snooze.ends_at.is_none();
        (snooze.target, is_mute)
    }))
}

/// Deletes a project's snoozes that have ended.
///
/// # Errors
/// When the database is away.
pub async fn delete_ended(tx: &mut Tx, project: ProjectId, now: DateTime<Utc>) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM snooze WHERE project_id = $1 AND ends_at <= $2",
        project.0,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the number of tags of a project that have a snooze or mute.
///
/// # Errors
/// When the database is away.
pub async fn count_tags(tx: &mut Tx, project: ProjectId) -> StoreResult<i64> {
    Ok(sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM snooze WHERE project_id = $1 AND tag IS NOT NULL",
        project.0
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Returns a project's mutes, and its snoozes that have not ended, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(
    reader: &Reader,
    project: ProjectId,
    page: Page<SnoozeId>,
    now: DateTime<Utc>,
) -> StoreResult<Vec<Snooze>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, monitor_id, tag, ends_at, created_at, created_by_kind, created_by_id
        FROM snooze
        WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) AND (ends_at IS NULL OR ends_at > $4)
        ORDER BY id DESC
        LIMIT $3",
        project.0,
        page.after.map(|id| id.0),
        page.limit,
        now
    )
    .fetch_all(reader.pool())
    .await?;
    Ok(rows.into_iter().map(Snooze::from).collect())
}

/// Returns the monitor of a slug, for a snooze by ping URL.
///
/// # Errors
/// When the database is away.
pub async fn monitor_of_slug(tx: &mut Tx, project: ProjectId, slug: &str) -> StoreResult<Option<MonitorId>> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM monitor WHERE project_id = $1 AND slug = $2",
        project.0,
        slug
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(MonitorId))
}

/// Returns the holds by snoozes and mutes of projects, of their tags, and of these monitors. Monitors whose snoozes end at the same time share one
/// hold, so a storm under a mute is as cheap as one incident.
///
/// # Errors
/// When the database is away.
pub async fn holds(
    tx: &mut Tx,
    projects: &[ProjectId],
    monitors: &[MonitorKey],
    now: DateTime<Utc>,
) -> StoreResult<HashMap<ProjectId, Vec<Hold>>> {
    let rows = sqlx::query!(
        r#"
        SELECT project_id AS "project_id!", monitor_id, tag, ends_at
        FROM snooze
        WHERE project_id = ANY($1) AND monitor_id IS NULL AND (ends_at IS NULL OR ends_at > $4)
        UNION ALL
        SELECT project_id, monitor_id, tag, ends_at
        FROM snooze
        WHERE (monitor_id, project_id) IN (SELECT * FROM UNNEST($2::uuid[], $3::uuid[])) AND (ends_at IS NULL OR ends_at > $4)
        "#,
        &column(projects, |id| id.0),
        &column(monitors, |(_, id)| id.0),
        &column(monitors, |(project, _)| project.0),
        now
    )
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<ProjectId, Vec<Hold>> = HashMap::new();
    let mut of_monitors: BTreeMap<(Uuid, Option<DateTime<Utc>>), BTreeSet<Uuid>> = BTreeMap::new();
    let time = |ends_at: Option<DateTime<Utc>>| {
        // A snooze holds from the beginning of time, because the clock may have been set back since it was made.
        ends_at.map_or(Time::Always, |until| Time::Once {
            from: DateTime::<Utc>::MIN_UTC,
            until,
        })
    };
    for row in rows {
        if let Some(monitor) = row.monitor_id {
            of_monitors
                .entry((row.project_id, row.ends_at))
                .or_default()
                .insert(monitor);
            continue;
        }
        let scope = match row.tag {
            None => Scope::Project,
            Some(tag) => Scope::Monitors {
                ids: BTreeSet::new(),
                tags: BTreeSet::from([tag]),
            },
        };
        found.entry(ProjectId(row.project_id)).or_default().push(Hold {
            scope,
            time: time(row.ends_at),
        });
    }
    for ((project, ends_at), ids) in of_monitors {
        let scope = Scope::Monitors {
            ids,
            tags: BTreeSet::new(),
        };
        found.entry(ProjectId(project)).or_default().push(Hold {
            scope,
            time: time(ends_at),
        });
    }
    Ok(found)
}
