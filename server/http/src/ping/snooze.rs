//! Snoozes by ping key, for deploy scripts: `/ping/<key>/<slug>/snooze/20m`, and `/ping/<key>/snooze/20m` with or without `?tag=`.
//!
//! No ping has such a URL: a length has a unit, and an exit code has none. Snoozes do not pass through the lanes of pings. They use the database
//! connections of requests, one at a time for each project.

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use chrono::TimeDelta;
use deadbeat_domain::alert::snooze::{Length, read_length};
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::key;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::ServiceError;
use deadbeat_services::alert::hold::{Snoozed, snooze_by_ping};
use deadbeat_services::people::api_key::{Denied, authorise_part};
use deadbeat_store::StoreError;
use deadbeat_store::connection::asker::Asker;

use super::limited::limited;
use super::{text, too_many, try_again};
use crate::extract::peer::client_ip;
use crate::state::AppState;

/// The contents of a snooze URL.
pub(super) struct Order<'a> {
    key: &'a str,
    slug: Option<&'a str>,
    length: Length,
}

/// Parses the path behind `/ping/`. Returns `None` if the URL does not ask for a snooze.
pub(super) fn parse(tail: &str) -> Option<Order<'_>> {
    let tail = tail.strip_suffix('/').unwrap_or(tail);
    let mut segments = tail.split('/');
    let key = segments.next().filter(|key| key::is_plausible(key))?;
    let (slug, length) = match (segments.next()?, segments.next()?, segments.next()) {
        ("snooze", length, None) => (None, length),
        (slug, "snooze", Some(length)) => (Some(slug), length),
        _ => return None,
    };
    let is_over = segments.next().is_none();
    let length = read_length(length).filter(|_| is_over)?;
    Some(Order { key, slug, length })
}

/// Snoozes, or says in one line why not.
pub(super) async fn answer(request: &HttpRequest, state: &Data<AppState>, order: Order<'_>) -> HttpResponse {
    if !matches!(*request.method(), Method::GET | Method::POST | Method::PUT) {
        return HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, POST, PUT"))
            .content_type("text/plain; charset=utf-8")
            .body("method not allowed: GET, POST and PUT are");
    }
    let Length::Allowed(length) = order.length else {
        return text(StatusCode::BAD_REQUEST, "a snooze lasts from 1s to 24h");
    };
    let client = client_ip(request, state);
    let (access, _) = match authorise_part(&state.services, Some(order.key), Action::Signal, client).await {
        Ok(allowed) => allowed,
        Err(Denied::Limited { fault, .. }) => return limited(fault),
        Err(Denied::Store(error)) => return away(&error.into()),
        // The same answer as for an unknown path, so that a caller without a valid key cannot find out which keys exist.
        Err(_) => return text(StatusCode::NOT_FOUND, "not found"),
    };
    let Ok(project) = access.may(Action::Signal) else {
        return text(StatusCode::NOT_FOUND, "not found");
    };
    let what = match (order.slug, tag(request)) {
        (Some(slug), Ok(None)) => Snoozed::Slug(slug.to_owned()),
        (None, Ok(Some(tag))) => Snoozed::Tag(tag),
        (None, Ok(None)) => Snoozed::Project,
        // A typing error such as `tags=` must not snooze the whole project.
        (_, Err(()) | Ok(Some(_))) => {
            return text(
                StatusCode::BAD_REQUEST,
                "invalid query: without a slug, one tag is allowed",
            );
        }
    };
    let snoozing = snooze(state, &access, &what, length);
    Asker::Project(project).asks(snoozing).await
}

/// Reads the parameter `tag`. Fails if the query contains anything else.
fn tag(request: &HttpRequest) -> Result<Option<String>, ()> {
    let query = request.query_string();
    if query.is_empty() {
        return Ok(None);
    }
    let query = Query::<Vec<(String, String)>>::from_query(query).map_err(|_| ())?;
    match <[(String, String); 1]>::try_from(query.into_inner()) {
        Ok([(name, tag)]) if name == "tag" => Ok(Some(tag)),
        _ => Err(()),
    }
}

async fn snooze(state: &Data<AppState>, access: &Access, what: &Snoozed, length: TimeDelta) -> HttpResponse {
    match snooze_by_ping(&state.services, access, what, length).await {
        Ok(()) => text(StatusCode::OK, "OK"),
        Err(ServiceError::Invalid(_)) => text(StatusCode::BAD_REQUEST, "invalid tag"),
        Err(ServiceError::KeyFault(fault)) => limited(fault),
        Err(ServiceError::NotFound(_) | ServiceError::Refused(_)) => text(StatusCode::NOT_FOUND, "not found"),
        Err(ServiceError::Limit { .. }) => too_many(TimeDelta::hours(1)),
        Err(error) => away(&error),
    }
}

fn away(error: &ServiceError) -> HttpResponse {
    if matches!(
        error,
        ServiceError::Busy | ServiceError::Store(StoreError::Crowded)
    ) {
        return try_again("busy, try again");
    }
    tracing::warn!(error = %deadbeat_store::with_sources(error), "a ping key could not snooze");
    try_again("database away, try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dbp_00000000000000000000000000000000000000000000";

    #[test]
    fn only_a_length_with_a_unit_is_a_snooze() {
        for (tail, slug, is_snooze) in [
            (format!("{KEY}/snooze/20m"), None, true),
            (format!("{KEY}/snooze/20m/"), None, true),
            (format!("{KEY}/backup/snooze/2h"), Some("backup"), true),
            (format!("{KEY}/snooze/snooze/90s"), Some("snooze"), true),
            (format!("{KEY}/snooze/25h"), None, true),
            // Pings of monitors whose slugs look like this.
            (format!("{KEY}/snooze"), None, false),
            (format!("{KEY}/snooze/20"), None, false),
            (format!("{KEY}/snooze/start"), None, false),
            (format!("{KEY}/20m"), None, false),
            (format!("{KEY}/backup/20m"), None, false),
            (format!("{KEY}/backup/snooze"), None, false),
            (format!("{KEY}/backup/snooze/20m/more"), None, false),
            (
                "0fe1ed0a-6d3c-4fa8-9f0b-7f1b0ae8d2f5/snooze/20m".to_owned(),
                None,
                false,
            ),
            ("some-key/snooze/20m".to_owned(), None, false),
        ] {
            let found = parse(&tail);

            assert_eq!(found.is_some(), is_snooze, "{tail}");
            assert_eq!(found.and_then(|order| order.slug), slug, "{tail}");
            // A snooze URL is never a ping URL.
            assert!(!is_snooze || crate::ping::parse(&tail).is_err(), "{tail}");
        }
    }
}
