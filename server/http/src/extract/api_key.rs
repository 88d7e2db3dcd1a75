//! API keys: which project a request is for, and what it may do.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use deadbeat_domain::ids::{ApiKeyId, ProjectId};
use deadbeat_domain::people::key::Scope;
use deadbeat_services::people::api_key::{authorise, note_refusal};
use deadbeat_store::connection::asker::Asker;
use deadbeat_store::people::api_key::ApiKey;

use crate::error::ApiError;
use crate::extract::peer::client_ip;
use crate::problem::Problem;
use crate::state::AppState;

/// A request that may look. The scope is that of its key: `read`, or `write`, which may see what signals.
#[derive(Debug, Clone, Copy)]
pub struct MayRead(pub ProjectId, pub Scope);

/// A request that may manage, by the key of that id.
#[derive(Debug, Clone, Copy)]
pub struct MayWrite(pub ProjectId, pub ApiKeyId);

/// A request that may signal, and register what signals; and with which key.
#[derive(Debug, Clone, Copy)]
pub struct MayPing(pub ProjectId, pub ApiKeyId);

/// The key of a request: `Authorization: Bearer <key>`, or `X-Api-Key`.
fn presented(request: &HttpRequest) -> Option<String> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    bearer
        .or_else(|| text("x-api-key").map(str::trim))
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}

async fn key(request: HttpRequest, wanted: Scope) -> Result<ApiKey, ApiError> {
    let Some(state) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Err(ApiError::new(Problem::Internal, "the server is wired wrongly"));
    };
    let Some(key) = presented(&request) else {
        return Err(ApiError::new(
            Problem::MissingKey,
            "send the header \"Authorization: Bearer <key>\" or \"X-Api-Key: <key>\"",
        ));
    };
    let Some(found) = authorise(&state.services, &key).await? else {
        return Err(ApiError::new(
            Problem::UnknownKey,
            "no project has this key, or it was revoked",
        ));
    };
    Asker::Project(found.project_id).takes_over();
    if !found.scope.allows(wanted) {
        note_refusal(&state.services, &found, wanted, client_ip(&request, &state));
        return Err(ApiError::new(
            Problem::KeyScope,
            format!(
                "this is a {} key ({}…); a {} key is needed",
                found.scope.as_str(),
                found.prefix,
                wanted.as_str()
            ),
        ));
    }
    Ok(found)
}

macro_rules! extract {
    ($name:ident, $scope:expr, |$key:ident| $made:expr) => {
        impl FromRequest for $name {
            type Error = ApiError;
            type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let request = request.clone();
                Box::pin(async move { key(request, $scope).await.map(|$key| $made) })
            }
        }
    };
}

extract!(MayRead, Scope::Read, |key| Self(key.project_id, key.scope));
extract!(MayWrite, Scope::Write, |key| Self(key.project_id, key.id));
extract!(MayPing, Scope::Ping, |key| Self(key.project_id, key.id));
