//! Says for whom a request is worked on, so that its database connections come from that one's share.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;
use deadbeat_store::asker::Asker;

use crate::extract::client_ip::{client_ip, network};
use crate::state::AppState;

/// The middleware for everything but `/ping/…`, which needs none of these connections. Until a key or a session says who asks, it is the
/// client's address.
///
/// # Errors
/// Those of what it wraps.
pub async fn of_client(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let client = request
        .app_data::<Data<AppState>>()
        .and_then(|state| client_ip(request.request(), state));
    match client {
        Some(client) => Asker::Address(network(client)).asks(next.call(request)).await,
        None => next.call(request).await,
    }
}
