//! Table `message_handle`: the service's handle of the message that shows an incident in a channel.

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{ChannelId, IncidentId, ProjectId};
use serde_json::Value;

use crate::{StoreResult, Tx};

/// Writes the handle of an incident's message in a channel. The handle replaces an earlier one. Does nothing if the incident was deleted.
///
/// # Errors
/// If the database is away.
pub async fn put(
    tx: &mut Tx,
    project: ProjectId,
    incident: IncidentId,
    channel: ChannelId,
    handle: &Value,
    now: DateTime<Utc>,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO message_handle (incident_id, channel_id, project_id, handle, updated_at)
        SELECT incident.id, $2, incident.project_id, $4, $5 FROM incident WHERE incident.project_id = $3 AND incident.id = $1
        FOR KEY SHARE
        ON CONFLICT (incident_id, channel_id, project_id) DO UPDATE SET handle = $4, updated_at = $5",
        incident.0,
        channel.0,
        project.0,
        handle,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
