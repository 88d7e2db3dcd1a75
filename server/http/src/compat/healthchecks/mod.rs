//! The management API of Healthchecks, versions 1, 2 and 3, and its badges (docs/compat.md#healthchecks).
//!
//! A check is a monitor. The `uuid` of a check is the monitor's ping id, as in Healthchecks, where it is the address of the check's pings. So keys that
//! may only read get a `unique_key` in its place.

#![allow(
    clippy::result_large_err,
    reason = "an error is the answer itself, once per refused request"
)]

mod answer;
mod badge;
mod check;
mod history;
mod key;
mod single;
mod spec;

use actix_web::http::Method;
use actix_web::web::{Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource, web};

use self::answer::{Answer, away, cors, empty, error, text};
use self::check::Version;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    for version in [Version::V1, Version::V2, Version::V3] {
        let root = version.root();
        let at = |path: &str| web::resource(format!("{root}{path}"));
        config
            .service(
                web::resource([format!("{root}/checks/"), format!("{root}/checks")]).route(web::to(
                    move |request: HttpRequest, state: Data<AppState>, payload: Payload| async move {
                        let found = match *request.method() {
                            Method::GET => check::list(&request, &state, version).await,
                            Method::POST => check::create(&request, &state, payload, version).await,
                            _ => return other(&request, "GET, POST"),
                        };
                        cors(found, "GET, POST")
                    },
                )),
            )
            .service(at("/checks/{id}").route(web::to(
                move |request: HttpRequest, state: Data<AppState>, payload: Payload| async move {
                    let found = match *request.method() {
                        Method::GET => single::read(&request, &state, version).await,
                        Method::POST => single::update(&request, &state, payload, version).await,
                        Method::DELETE => single::delete(&request, &state, version).await,
                        _ => return other(&request, "GET, POST, DELETE"),
                    };
                    cors(found, "GET, POST, DELETE")
                },
            )))
            .service(at("/checks/{id}/pause").route(web::to(
                move |request: HttpRequest, state: Data<AppState>, payload: Payload| async move {
                    match *request.method() {
                        Method::POST => cors(single::pause(&request, &state, payload, version).await, "POST"),
                        _ => other(&request, "POST"),
                    }
                },
            )))
            .service(at("/checks/{id}/resume").route(web::to(
                move |request: HttpRequest, state: Data<AppState>, payload: Payload| async move {
                    match *request.method() {
                        Method::POST => {
                            cors(single::resume(&request, &state, payload, version).await, "POST")
                        }
                        _ => other(&request, "POST"),
                    }
                },
            )))
            .service(at("/checks/{id}/pings/").route(web::to(
                move |request: HttpRequest, state: Data<AppState>| async move {
                    match *request.method() {
                        Method::GET => cors(history::pings(&request, &state, version).await, "GET"),
                        _ => other(&request, "GET"),
                    }
                },
            )))
            .service(get(at("/checks/{id}/pings/{n}/body"), history::body))
            .service(get(at("/checks/{id}/flips/"), history::flips))
            .service(get(at("/channels/"), history::channels))
            .service(get(at("/badges/"), badge::list))
            .service(get(at("/status/"), status))
            .service(at("/metrics/").route(web::to(|| async { HttpResponse::Forbidden().finish() })));
        if version != Version::V1 {
            // Below /api/v1 our own API answers what is not found.
            config.service(
                at("/{tail}*").route(web::to(|| async { cors(Err(error(404, "not found")), "GET") })),
            );
        }
    }
    config
        .service(get(
            web::resource("/badge/{project}/{signature}/{tag}.{format}"),
            badge::show,
        ))
        .service(get(
            web::resource("/badge/{project}/{signature}.{format}"),
            badge::show,
        ));
}

/// A resource that only answers GET, and preflights.
fn get<F, R>(resource: Resource, answer: F) -> Resource
where
    F: Fn(HttpRequest, Data<AppState>) -> R + Clone + 'static,
    R: Future<Output = Answer> + 'static,
{
    resource.route(web::to(move |request: HttpRequest, state: Data<AppState>| {
        let answer = answer.clone();
        async move {
            match *request.method() {
                Method::GET => cors(answer(request, state).await, "GET"),
                _ => other(&request, "GET"),
            }
        }
    }))
}

/// Answers a preflight, or a method that the path does not take.
fn other(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let status = if *request.method() == Method::OPTIONS {
        204
    } else {
        405
    };
    cors(Err(empty(status)), allowed)
}

/// Answers whether the database answers.
async fn status(_: HttpRequest, state: Data<AppState>) -> Answer {
    let selfwatch = state.services.selfwatch();
    let readiness = selfwatch.readiness(&state.reader(), state.now()).await;
    match readiness.pulse {
        Some(_) => Ok(text(200, "OK")),
        None => Err(away()),
    }
}
