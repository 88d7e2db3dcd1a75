//! Invitations to the project: list, make, withdraw.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::InvitationId;
use deadbeat_domain::json::instant;
use deadbeat_services::people::invitation as service;
use deadbeat_store::page::Page;
use deadbeat_store::people::invitation::Invitation;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::member::role;
use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::MayManageMembers;
use crate::extract::json::{Json, given};
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/invitations")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/invitations/{id}")
                .route(web::delete().to(withdraw))
                .default_service(only("DELETE")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    role: String,
    #[serde(default, deserialize_with = "given")]
    email: Option<String>,
    #[serde(default, deserialize_with = "given")]
    expires_in_seconds: Option<i64>,
}

fn show(invitation: &Invitation) -> Value {
    json!({
        "id": invitation.id,
        "email": invitation.email,
        "role": invitation.role.as_str(),
        "created_at": instant(invitation.created_at),
        "expires_at": instant(invitation.expires_at),
    })
}

async fn list(
    request: HttpRequest,
    key: MayManageMembers,
    state: Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let after = Page {
        after: page.after.map(InvitationId),
        limit: one_more(&page).limit,
    };
    let rows = service::list(&state.services, &key.1, after).await?;
    let (rows, next) = cut(rows, page.limit, |one| one.id.to_string());
    let invitations: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"invitations": invitations, "next_cursor": next})))
}

/// Makes an invitation. Only this answer contains its link.
async fn create(
    key: MayManageMembers,
    state: Data<AppState>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let body = body.read().await?;
    let new = service::NewInvitation {
        role: role(&body.role)?,
        email: body.email,
        seconds: body.expires_in_seconds,
    };
    let (invitation, link) = service::create(&state.services, &key.1, new).await?;
    let mut shown = show(&invitation);
    shown["url"] = json!(link);
    Ok(HttpResponse::Created().json(shown))
}

async fn withdraw(
    key: MayManageMembers,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let invitation = InvitationId(id(&path, "invitation")?);
    service::withdraw(&state.services, &key.1, invitation).await?;
    Ok(HttpResponse::NoContent().finish())
}
