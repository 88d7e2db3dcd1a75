//! Sets the asker of a request: the request's database connections count against the asker's share. Also lets the thread's other connections run.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;
use deadbeat_store::connection::asker::Asker;

use crate::extract::client_ip::network;
use crate::extract::peer::client_ip;
use crate::state::AppState;

/// The middleware for all paths except `/ping/…`, which needs no connection from these shares. The asker is the client's address until a key or a
/// session identifies the project or the account.
///
/// # Errors
/// Those of the wrapped service.
pub async fn of_client(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let client = request
        .app_data::<Data<AppState>>()
        .and_then(|state| client_ip(request.request(), state));
    // A client may send hundreds of requests without reading an answer. Yield between them, so that the thread's other connections can run. Pings
    // need no such yield, because each of them waits for its commit.
    tokio::task::yield_now().await;
    match client {
        Some(client) => Asker::Address(network(client)).asks(next.call(request)).await,
        None => next.call(request).await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpResponse, web};

    use super::*;

    #[actix_web::test]
    async fn other_work_of_the_thread_has_a_turn_between_requests_that_never_wait() {
        let app = App::new()
            .wrap(from_fn(of_client))
            .default_service(web::to(HttpResponse::Ok));
        let app = init_service(app).await;
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        actix_web::rt::spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                actix_web::rt::task::yield_now().await;
            }
        });

        for _ in 0..20 {
            call_service(&app, TestRequest::get().to_request()).await;
        }

        assert!(turns.get() >= 20, "{} turns", turns.get());
    }
}
