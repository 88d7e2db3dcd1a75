//! Somebody acknowledged an incident in PagerDuty: its webhooks of version 3.
//!
//! The `dedup_key` of each alert is the id of our incident. PagerDuty calls it `incident_key`. An incident into which PagerDuty merged others
//! may have the key of another alert, or none: then nothing is acknowledged here.
//!
//! Sources: <https://developer.pagerduty.com/docs/webhooks-overview>, <https://developer.pagerduty.com/docs/verifying-webhook-signatures>,
//! <https://github.com/PagerDuty/developer-docs/tree/main/docs/webhooks>.

use deadbeat_domain::ids::IncidentId;
use serde::Deserialize;
use uuid::Uuid;

use super::{CallbackError, Place, acknowledge, is_signed, proving};
use crate::Services;

/// The most signatures that the server checks: PagerDuty sends one for each secret while a secret is replaced.
const SIGNATURES: usize = 8;

#[derive(Deserialize)]
struct Webhook {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    event_type: String,
    agent: Option<Agent>,
    #[serde(default)]
    data: IncidentData,
}

#[derive(Deserialize)]
struct Agent {
    summary: Option<String>,
}

#[derive(Default, Deserialize)]
struct IncidentData {
    incident_key: Option<String>,
}

/// Acknowledges the incident that an event is about. Other events change nothing.
///
/// # Errors
/// The request is not proved, its body cannot be read, or the database is away.
pub async fn happened(
    services: &Services,
    place: Place,
    signatures: &str,
    body: &[u8],
) -> Result<(), CallbackError> {
    let proving = proving(services, place, "pagerduty", "webhook_secret").await?;
    let is_proved = signatures
        .split(',')
        .take(SIGNATURES)
        .filter_map(|one| one.trim().strip_prefix("v1="))
        .any(|signature| is_signed(&proving.secret, &[body], signature));
    if !is_proved {
        return Err(CallbackError::Unproved);
    }
    let Webhook { event } = serde_json::from_slice(body).map_err(|_| CallbackError::Unreadable)?;
    if event.event_type != "incident.acknowledged" {
        return Ok(());
    }
    let incident = event
        .data
        .incident_key
        .as_deref()
        .and_then(|key| Uuid::try_parse(key).ok());
    if let Some(incident) = incident {
        let name = event.agent.and_then(|agent| agent.summary).unwrap_or_default();
        acknowledge(services, place.project, IncidentId(incident), &name, "PagerDuty").await?;
    }
    Ok(())
}
