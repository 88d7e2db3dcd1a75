//! Somebody acknowledged an alert in Jira Service Management or Opsgenie: their outgoing webhooks.
//!
//! The alias of each alert is the id of our incident. The webhooks are not signed: a header that the person who sets the webhook up enters holds a
//! token.
//!
//! Sources: <https://support.atlassian.com/opsgenie/docs/opsgenie-edge-connector-alert-action-data>,
//! <https://docs.opsgenie.com/docs/webhook-integration>,
//! <https://support.atlassian.com/jira-service-management-cloud/docs/integrate-with-webhook>.

use deadbeat_domain::ids::IncidentId;
use serde::Deserialize;
use uuid::Uuid;

use super::{CallbackError, Place, acknowledge, is_token, proving};
use crate::Services;

#[derive(Deserialize)]
struct Webhook {
    action: String,
    #[serde(default)]
    alert: Alert,
}

#[derive(Default, Deserialize)]
struct Alert {
    alias: Option<String>,
    username: Option<String>,
}

/// Acknowledges the incident that an action is about. Other actions change nothing.
///
/// # Errors
/// The request is not proved, its body cannot be read, or the database is away.
pub async fn acted(services: &Services, place: Place, token: &str, body: &[u8]) -> Result<(), CallbackError> {
    let proving = proving(services, place, "jira_service_management", "webhook_token").await?;
    if !is_token(&proving.secret, token) {
        return Err(CallbackError::Unproved);
    }
    let Webhook { action, alert } = serde_json::from_slice(body).map_err(|_| CallbackError::Unreadable)?;
    if action != "Acknowledge" {
        return Ok(());
    }
    let service = match proving.settings["service"].as_str() {
        Some("opsgenie" | "opsgenie_eu") => "Opsgenie",
        _ => "Jira Service Management",
    };
    let incident = alert
        .alias
        .as_deref()
        .and_then(|alias| Uuid::try_parse(alias).ok());
    if let Some(incident) = incident {
        let name = alert.username.unwrap_or_default();
        acknowledge(services, place.project, IncidentId(incident), &name, service).await?;
    }
    Ok(())
}
