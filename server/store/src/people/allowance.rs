//! Table `allowance`: how much of their daily allowances projects have used, counted by all processes together.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::people::rate::Allowance;

use crate::{StoreResult, Tx};

/// The counted things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Monitors that ping keys created, by `create=1` or as entries of a Beat.
    CreatedMonitors,
    /// API keys that were issued.
    ApiKeys,
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            Self::CreatedMonitors => "created_monitors",
            Self::ApiKeys => "api_keys",
        }
    }
}

/// Locks a project's allowance until the transaction ends. Creates it first if there is none.
///
/// # Errors
/// If the database is away.
pub async fn lock(tx: &mut Tx, project: ProjectId, what: What, now: DateTime<Utc>) -> StoreResult<Allowance> {
    sqlx::query!(
        "INSERT INTO allowance (project_id, what, began_at, used) VALUES ($1, $2, $3, 0) ON CONFLICT (project_id, what) DO NOTHING",
        project.0,
        what.as_str(),
        now
    )
    .execute(tx.conn())
    .await?;
    let row = sqlx::query!(
        "SELECT began_at, used FROM allowance WHERE project_id = $1 AND what = $2 FOR UPDATE",
        project.0,
        what.as_str()
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Allowance {
        began_at: row.began_at,
        used: row.used,
    })
}

/// Writes what was used of a locked allowance.
///
/// # Errors
/// When the database is away.
pub async fn write(tx: &mut Tx, project: ProjectId, what: What, allowance: &Allowance) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE allowance SET began_at = $3, used = $4 WHERE project_id = $1 AND what = $2",
        project.0,
        what.as_str(),
        allowance.began_at,
        allowance.used
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
