//! `/api/v1`, as `openapi.yaml` has it.

pub mod api_key;
pub mod beat;
pub mod blind_spell;
pub mod channel;
pub mod delivery;
pub mod event;
pub mod incident;
pub mod monitor;
pub mod ping;
pub mod project;
pub mod run;
pub mod schedule;
pub mod trace;
pub mod worker;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::middleware::DefaultHeaders;
use actix_web::web::ServiceConfig;
use actix_web::{HttpRequest, Route, web};
use uuid::Uuid;

use crate::error::ApiError;
use crate::problem::Problem;

/// The routes of every resource.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::scope("/api/v1")
            .configure(monitor::configure)
            .configure(ping::configure)
            .configure(run::configure)
            .configure(trace::configure)
            .configure(incident::configure)
            .configure(channel::configure)
            .configure(delivery::configure)
            .configure(api_key::configure)
            .configure(beat::configure)
            .configure(worker::configure)
            .configure(blind_spell::configure)
            .configure(project::configure)
            .configure(event::configure)
            .configure(schedule::configure)
            .default_service(web::route().to(unknown_path))
            // Answers hold what a key is needed for, some of them secrets.
            .wrap(DefaultHeaders::new().add((CACHE_CONTROL, "no-store"))),
    );
}

async fn unknown_path(request: HttpRequest) -> Result<&'static str, ApiError> {
    Err(ApiError::new(
        Problem::NotFound,
        format!("there is no path {}", request.path()),
    ))
}

/// The answer to a method that a path does not take; `allowed` are those that it does.
pub(crate) fn only(allowed: &'static str) -> Route {
    web::to(
        move |request: HttpRequest| async move { Err::<&str, _>(ApiError::wrong_method(&request, allowed)) },
    )
}

/// An id in a path; what is no id is nothing's.
pub(crate) fn id(text: &str, what: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::not_found(what))
}
