//! `/api/v1`, as `openapi.yaml` specifies it.

pub mod alert;
pub mod celery;
pub mod feed;
pub mod incident;
pub mod judge;
pub mod monitor;
pub mod people;
pub mod schedule;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::middleware::DefaultHeaders;
use actix_web::web::ServiceConfig;
use actix_web::{HttpRequest, Route, web};
use uuid::Uuid;

use crate::error::ApiError;
use crate::problem::Problem;

/// Mounts the routes of every resource.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::scope("/api/v1")
            .configure(monitor::configure)
            .configure(monitor::ping::configure)
            .configure(monitor::run::configure)
            .configure(celery::trace::configure)
            .configure(incident::configure)
            .configure(feed::configure)
            .configure(alert::preview::configure)
            .configure(alert::channel::configure)
            .configure(alert::delivery::configure)
            .configure(alert::push_key::configure)
            .configure(alert::snooze::configure)
            .configure(alert::window::configure)
            .configure(alert::rotation::configure)
            .configure(alert::policy::configure)
            .configure(people::api_key::configure)
            .configure(people::audit::configure)
            .configure(people::figures::configure)
            .configure(people::invitation::configure)
            .configure(people::member::configure)
            .configure(celery::beat::configure)
            .configure(celery::worker::configure)
            .configure(judge::blind_spell::configure)
            .configure(people::project::configure)
            .configure(celery::event::configure)
            .configure(schedule::configure)
            .default_service(web::route().to(unknown_path))
            // Answers contain data that only the key's holder may read, some of it secret: no cache may keep them.
            .wrap(DefaultHeaders::new().add((CACHE_CONTROL, "no-store"))),
    );
}

async fn unknown_path(request: HttpRequest) -> Result<&'static str, ApiError> {
    Err(ApiError::new(
        Problem::NotFound,
        format!("there is no path {}", request.path()),
    ))
}

/// Answers 405 to methods that a path does not allow. `allowed` lists the methods that it does.
pub(crate) fn only(allowed: &'static str) -> Route {
    web::to(
        move |request: HttpRequest| async move { Err::<&str, _>(ApiError::wrong_method(&request, allowed)) },
    )
}

/// Parses an id in a path. A text that is not an id cannot exist: 404.
pub(crate) fn id(text: &str, what: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::not_found(what))
}
