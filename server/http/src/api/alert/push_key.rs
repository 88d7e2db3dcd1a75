//! The public key with which browsers subscribe to this deployment's push messages.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_services::alert::push_key;
use serde_json::json;

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/push-key")
            .route(web::get().to(read))
            .default_service(only("GET")),
    );
}

async fn read(key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let public_key = push_key::public(&state.services, &key.1).await?;
    Ok(HttpResponse::Ok().json(json!({"public_key": public_key})))
}
