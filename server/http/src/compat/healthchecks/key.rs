//! The key of a request, and its body.

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key;
use deadbeat_domain::people::permission::Action;
use serde_json::{Map, Value};

use super::answer::{away, error, invalid};
use crate::extract::api_key::access_of;
use crate::extract::json;
use crate::problem::Problem;

/// The project and the access of a request's key.
pub(super) struct Caller {
    pub(super) project: ProjectId,
    pub(super) access: Access,
}

impl Caller {
    /// True for a key that may only read: it does not see by which address a check is pinged.
    pub(super) fn is_readonly(&self) -> bool {
        self.access.may(Action::SeePingUrls).is_err()
    }
}

/// Returns the caller of a request whose key stands in the header.
pub(super) async fn caller(request: &HttpRequest, action: Action) -> Result<Caller, HttpResponse> {
    of_key(request, header(request), action).await
}

/// Returns the caller and the body's members of a request whose key stands in the header, or else in the body's `api_key`.
pub(super) async fn caller_and_body(
    request: &HttpRequest,
    payload: Payload,
    action: Action,
) -> Result<(Caller, Map<String, Value>), HttpResponse> {
    // A key in the header is checked before the body is read.
    let known = match header(request) {
        Some(key) => Some(of_key(request, Some(key), action).await?),
        None => None,
    };
    let body = read(payload).await?;
    let caller = match known {
        Some(caller) => caller,
        None => of_key(request, body.get("api_key").and_then(Value::as_str), action).await?,
    };
    Ok((caller, body))
}

fn header(request: &HttpRequest) -> Option<&str> {
    request
        .headers()
        .get("x-api-key")
        .map(|value| value.to_str().unwrap_or_default().trim())
}

async fn of_key(
    request: &HttpRequest,
    presented: Option<&str>,
    action: Action,
) -> Result<Caller, HttpResponse> {
    // Healthchecks calls a key of a wrong length missing.
    let presented = presented.filter(|text| key::is_plausible(text));
    let Some(presented) = presented else {
        return Err(error(401, "missing api key"));
    };
    match access_of(request, Some(presented), action).await {
        Ok((project, access)) => Ok(Caller { project, access }),
        Err(refused) => Err(match refused.problem() {
            Problem::MissingKey => error(401, "missing api key"),
            Problem::UnknownKey | Problem::KeyScope => error(401, "wrong api key"),
            _ => away(),
        }),
    }
}

async fn read(payload: Payload) -> Result<Map<String, Value>, HttpResponse> {
    let mut payload = payload.into_inner();
    let body = json::read(&mut payload, limits::JSON_BODY_BYTES)
        .await
        .map_err(|refused| match refused.problem() {
            Problem::BodyTooLarge => error(413, "the request body is too large"),
            _ => error(400, "could not parse request body"),
        })?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(invalid("value is not an object")),
        Err(_) => Err(error(400, "could not parse request body")),
    }
}
