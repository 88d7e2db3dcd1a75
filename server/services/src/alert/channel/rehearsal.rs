//! Tries the templates of a channel before the server stores them.

use std::time::Duration;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::ids::{ChannelId, ProjectId};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::kind_of;
use crate::alert::delivery::senders::Kind;
use crate::people::pace::Work;
use crate::{ServiceError, Services};

/// The number of rehearsals that run at a time in a process.
static TURNS: Semaphore = Semaphore::const_new(1);
/// How long a rehearsal waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries the templates that a request gives. A rehearsal may take a core for seconds. So a process runs one at a time, on a thread that
/// answers no requests, and pauses between the rehearsals of one project.
///
/// # Errors
/// A template is at fault, or too many rehearsals wait.
pub(crate) async fn rehearse(
    services: &Services,
    project: ProjectId,
    kind: &'static dyn Kind,
    settings: &Settings,
) -> Result<(), ServiceError> {
    if !kind.has_templates(settings) {
        return Ok(());
    }
    let piece = services.paces.take(project, Work::Render).await?;
    let Ok(Ok(_turn)) = tokio::time::timeout(PATIENCE, TURNS.acquire()).await else {
        return Err(ServiceError::Busy);
    };
    let settings = settings.clone();
    let rehearsed = tokio::task::spawn_blocking(move || kind.rehearse(&settings)).await;
    drop(piece);
    match rehearsed {
        Ok(found) => found.map_err(ServiceError::Invalid),
        // The runtime is shutting down.
        Err(_) => Err(ServiceError::Busy),
    }
}

/// Tries the templates of changed settings before the use case locks the channel. The change holds all templates: it may leave out only
/// secrets, and templates are none. The kind of a channel never changes.
///
/// # Errors
/// As for [`rehearse`], or the database is away.
pub(super) async fn of_change(
    services: &Services,
    project: ProjectId,
    id: ChannelId,
    settings: &Value,
) -> Result<(), ServiceError> {
    let Some(values) = settings.as_object() else {
        return Ok(());
    };
    let channel = deadbeat_store::alert::channel::get(&services.reader(), project, id).await?;
    let Some(channel) = channel else {
        return Ok(());
    };
    let Ok(kind) = kind_of(channel.settings.kind()) else {
        return Ok(());
    };
    let settings = Settings::new(kind.name(), values.clone());
    rehearse(services, project, kind, &settings).await
}
