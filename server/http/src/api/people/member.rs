//! Members of the project: list, change a role, remove.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::AccountId;
use deadbeat_domain::json::instant;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::people::role::Role;
use deadbeat_services::people::member as service;
use deadbeat_store::page::Page;
use deadbeat_store::people::member::Member;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayManageMembers, MaySeeMembers};
use crate::extract::json::Json;
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/members")
                .route(web::get().to(list))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/members/{id}")
                .route(web::patch().to(update))
                .route(web::delete().to(remove))
                .default_service(only("PATCH, DELETE")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    role: String,
}

fn show(member: &Member) -> Value {
    json!({
        "id": member.account,
        "email": member.email,
        "role": member.role.as_str(),
        "created_at": instant(member.created_at),
    })
}

async fn list(
    request: HttpRequest,
    key: MaySeeMembers,
    state: Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let after = Page {
        after: page.after.map(AccountId),
        limit: one_more(&page).limit,
    };
    let rows = service::list(&state.services, &key.1, after).await?;
    let (rows, next) = cut(rows, page.limit, |member| member.account.to_string());
    let members: Vec<Value> = rows.iter().map(show).collect();
    Ok(HttpResponse::Ok().json(json!({"members": members, "next_cursor": next})))
}

/// Reads the name of a role.
pub(super) fn role(text: &str) -> Result<Role, ApiError> {
    Role::parse(text).ok_or_else(|| {
        ApiError::fields(vec![FieldError::new(
            "/role",
            "is not one of owner, admin, member, viewer",
        )])
    })
}

async fn update(
    key: MayManageMembers,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<Body>,
) -> Result<HttpResponse, ApiError> {
    let account = AccountId(id(&path, "member")?);
    // Check this before reading the body: a caller who may not see the member must not get any other error.
    service::check(&state.services, &key.1, account).await?;
    let role = role(&body.read().await?.role)?;
    let member = service::set_role(&state.services, &key.1, account, role).await?;
    Ok(HttpResponse::Ok().json(show(&member)))
}

async fn remove(
    key: MayManageMembers,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let account = AccountId(id(&path, "member")?);
    service::remove(&state.services, &key.1, account).await?;
    Ok(HttpResponse::NoContent().finish())
}
