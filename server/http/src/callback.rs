//! `/callbacks/…`: services to which channels write say that one of their users acknowledged an incident.
//!
//! These addresses are for machines, and no part of `/api/v1`: the services decide their form. Each request proves itself by a secret of a
//! channel, so it needs neither a key nor a session. Whatever is wrong before the proof, the answer is 403 `bad_signature`.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::web::{Data, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Route, web};
use deadbeat_domain::ids::{ChannelId, ProjectId};
use deadbeat_services::incident::callback::slack::Headers;
use deadbeat_services::incident::callback::{
    BODY_BYTES, CallbackError, Place, jira_service_management, pagerduty, slack, telegram,
};
use serde_json::json;
use uuid::Uuid;

use crate::error::ApiError;
use crate::extract::json::read;
use crate::problem::Problem;
use crate::state::AppState;

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/callbacks/slack")
                .route(web::post().to(of_slack))
                .default_service(post_only()),
        )
        .service(
            web::resource("/callbacks/telegram/{project}/{channel}")
                .route(web::post().to(of_telegram))
                .default_service(post_only()),
        )
        .service(
            web::resource("/callbacks/pagerduty/{project}/{channel}")
                .route(web::post().to(of_pagerduty))
                .default_service(post_only()),
        )
        .service(
            web::resource("/callbacks/jira_service_management/{project}/{channel}")
                .route(web::post().to(of_jira_service_management))
                .default_service(post_only()),
        );
}

fn post_only() -> Route {
    web::to(|request: HttpRequest| async move { Err::<&str, _>(ApiError::wrong_method(&request, "POST")) })
}

impl From<CallbackError> for ApiError {
    fn from(error: CallbackError) -> Self {
        match error {
            CallbackError::Unproved => Self::new(Problem::BadSignature, error.to_string()),
            CallbackError::Unreadable => Self::new(Problem::InvalidJson, error.to_string()),
            CallbackError::Service(error) => error.into(),
        }
    }
}

/// What is no id names no channel: nothing can prove the request.
fn place(path: &(String, String)) -> Result<Place, ApiError> {
    let id = |text: &str| Uuid::try_parse(text).map_err(|_| CallbackError::Unproved);
    Ok(Place {
        project: ProjectId(id(&path.0)?),
        channel: ChannelId(id(&path.1)?),
    })
}

/// A header as text. Empty: there is none, or it is no text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

async fn body(payload: Payload) -> Result<Vec<u8>, ApiError> {
    read(&mut payload.into_inner(), BODY_BYTES).await
}

async fn of_slack(
    request: HttpRequest,
    state: Data<AppState>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body(payload).await?;
    let headers = Headers {
        timestamp: header(request.headers(), "x-slack-request-timestamp"),
        signature: header(request.headers(), "x-slack-signature"),
    };
    slack::pressed(&state.services, headers, &body).await?;
    Ok(HttpResponse::Ok().finish())
}

async fn of_telegram(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<(String, String)>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let place = place(&path)?;
    let body = body(payload).await?;
    let token = header(request.headers(), "x-telegram-bot-api-secret-token");
    let said = telegram::updated(&state.services, place, token, &body).await?;
    Ok(match said {
        // The answer to an update may call a method, so no request goes out.
        Some(said) => HttpResponse::Ok().json(json!({
            "method": "answerCallbackQuery",
            "callback_query_id": said.query,
            "text": said.text,
        })),
        None => HttpResponse::Ok().finish(),
    })
}

async fn of_pagerduty(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<(String, String)>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let place = place(&path)?;
    let body = body(payload).await?;
    let signatures = header(request.headers(), "x-pagerduty-signature");
    pagerduty::happened(&state.services, place, signatures, &body).await?;
    Ok(HttpResponse::Ok().finish())
}

async fn of_jira_service_management(
    request: HttpRequest,
    state: Data<AppState>,
    path: Path<(String, String)>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let place = place(&path)?;
    let body = body(payload).await?;
    let token = header(request.headers(), AUTHORIZATION.as_str());
    let token = token.strip_prefix("Bearer ").unwrap_or_default();
    jira_service_management::acted(&state.services, place, token, &body).await?;
    Ok(HttpResponse::Ok().finish())
}
