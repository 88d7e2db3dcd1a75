//! Shows what a channel would send, before it exists.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::{FieldError, clip};
use deadbeat_services::alert::example::preview;
use serde::Deserialize;
use serde_json::Value;

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayManageChannels;
use crate::extract::json::{Json, given};
use crate::state::AppState;

/// Adds the route. It must come before the routes of one channel, whose ids match any text.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/channels/preview")
            .route(web::post().to(show))
            .default_service(only("POST")),
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    kind: String,
    #[serde(default, deserialize_with = "given")]
    settings: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    cause: Option<String>,
    #[serde(default, deserialize_with = "given")]
    event: Option<String>,
}

/// Finds a name in a list. The fault names the whole list.
fn one_of<T: Copy>(
    field: &str,
    given: Option<&str>,
    otherwise: T,
    all: impl IntoIterator<Item = T>,
    name: fn(T) -> &'static str,
) -> Result<T, FieldError> {
    let Some(given) = given else {
        return Ok(otherwise);
    };
    let all: Vec<T> = all.into_iter().collect();
    all.iter()
        .copied()
        .find(|one| name(*one) == given)
        .ok_or_else(|| {
            let names: Vec<&str> = all.into_iter().map(name).collect();
            FieldError::new(
                format!("/{field}"),
                format!("is {:?}; one of {} is allowed", clip(given), names.join(", ")),
            )
        })
}

/// Sends nothing.
async fn show(
    key: MayManageChannels,
    state: Data<AppState>,
    body: Json<PreviewRequest>,
) -> Result<HttpResponse, ApiError> {
    let PreviewRequest {
        kind,
        settings,
        cause,
        event,
    } = body.read().await?;
    let cause = one_of(
        "cause",
        cause.as_deref(),
        Cause::BeatDown,
        Cause::ALL,
        Cause::as_str,
    );
    let alert = one_of(
        "event",
        event.as_deref(),
        Alert::Opened,
        Alert::ALL,
        Alert::as_str,
    );
    let (cause, alert) = match (cause, alert) {
        (Ok(cause), Ok(alert)) => (cause, alert),
        (cause, alert) => {
            let faults = [cause.err(), alert.err()];
            return Err(ApiError::fields(faults.into_iter().flatten().collect()));
        }
    };
    let shown = preview::of_new(&state.services, &key.1, &kind, settings.as_ref(), alert, cause).await?;
    Ok(HttpResponse::Ok().json(shown.to_json()))
}
