//! Channels: list, create, read, change, delete, send a test.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::alert::routing;
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::json::instant;
use deadbeat_services::alert::channel::{self as service, Written};
use deadbeat_services::alert::sealing;
use deadbeat_store::alert::channel::Channel;
use deadbeat_store::page::Page;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayManageChannels, MayRead};
use crate::extract::json::{Json, given};
use crate::extract::paging::{Query, cut, one_more};
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/channels")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/channels/{id}")
                .route(web::get().to(read))
                .route(web::patch().to(update))
                .route(web::delete().to(delete))
                .default_service(only("GET, PATCH, DELETE")),
        )
        .service(
            web::resource("/channels/{id}/confirmation")
                .route(web::post().to(ask_again))
                .default_service(only("POST")),
        )
        .service(
            web::resource("/channels/{id}/test")
                .route(web::post().to(send_test))
                .default_service(only("POST")),
        );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewChannel {
    kind: String,
    name: String,
    settings: Value,
    #[serde(default, deserialize_with = "given")]
    events: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    minimum_severity: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    delay_seconds: Option<Value>,
    #[serde(default, rename = "match", deserialize_with = "given")]
    matching: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    quiet_hours: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedChannel {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    settings: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    events: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    minimum_severity: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    delay_seconds: Option<Value>,
    #[serde(default, rename = "match", deserialize_with = "given")]
    matching: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    quiet_hours: Option<Value>,
}

/// Returns the rules that a body gives, by the names of [`routing::FIELDS`] and in their order.
fn rules(values: [Option<Value>; 5]) -> Map<String, Value> {
    let given = routing::FIELDS.into_iter().zip(values);
    given
        .filter_map(|(field, value)| Some((field.to_owned(), value?)))
        .collect()
}

/// Returns a channel as the API shows it. Its secret settings are masked.
fn show(state: &AppState, channel: &Channel) -> Value {
    let mut shown = json!({
        "id": channel.id,
        "kind": channel.settings.kind(),
        "name": channel.name,
        "settings": sealing::shown(&channel.settings),
        "unopened_reason": sealing::open(state.services.keyring(), channel).err().map(|fault| fault.to_string()),
        "disabled_at": channel.disabled.as_ref().map(|(at, _)| instant(*at)),
        "disabled_reason": channel.disabled.as_ref().map(|(_, reason)| reason),
        "confirmed_at": channel.confirmed_at.map(instant),
        "created_at": instant(channel.created_at),
        "updated_at": instant(channel.updated_at),
    });
    if let Value::Object(shown) = &mut shown {
        shown.extend(channel.routing.to_json());
    }
    shown
}

/// Returns a channel that was just written. This answer alone contains a new signing secret: the caller sets up the receiver with it.
fn show_written(state: &AppState, written: &Written) -> Value {
    let mut shown = show(state, &written.channel);
    if let Some(secret) = &written.signing_secret {
        shown["signing_secret"] = json!(secret.0);
    }
    shown
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let page = Query::of(&request, &["limit", "cursor"])?.page::<Uuid>()?;
    let after = Page {
        after: page.after.map(ChannelId),
        limit: one_more(&page).limit,
    };
    let rows = deadbeat_store::alert::channel::list(&state.reader(), key.0, after).await?;
    let (rows, next) = cut(rows, page.limit, |channel| channel.id.to_string());
    let channels: Vec<Value> = rows.iter().map(|channel| show(&state, channel)).collect();
    Ok(HttpResponse::Ok().json(json!({"channels": channels, "next_cursor": next})))
}

async fn create(
    key: MayManageChannels,
    state: Data<AppState>,
    body: Json<NewChannel>,
) -> Result<HttpResponse, ApiError> {
    let new = body.read().await?;
    let rules = rules([
        new.events,
        new.minimum_severity,
        new.delay_seconds,
        new.matching,
        new.quiet_hours,
    ]);
    let written = service::create_with(
        &state.services,
        &key.1,
        &new.kind,
        &new.name,
        &new.settings,
        &rules,
    )
    .await?;
    let location = format!("/api/v1/channels/{}", written.channel.id);
    Ok(HttpResponse::Created()
        .insert_header(("Location", location))
        .json(show_written(&state, &written)))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let channel =
        deadbeat_store::alert::channel::get(&state.reader(), key.0, ChannelId(id(&path, "channel")?)).await?;
    let channel = channel.ok_or_else(|| ApiError::not_found("channel"))?;
    Ok(HttpResponse::Ok().json(show(&state, &channel)))
}

async fn update(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
    body: Json<ChangedChannel>,
) -> Result<HttpResponse, ApiError> {
    let channel = ChannelId(id(&path, "channel")?);
    let change = body.read().await?;
    let rules = rules([
        change.events,
        change.minimum_severity,
        change.delay_seconds,
        change.matching,
        change.quiet_hours,
    ]);
    let written = service::update_with(
        &state.services,
        &key.1,
        channel,
        change.name.as_deref(),
        change.settings.as_ref(),
        &rules,
    )
    .await?;
    Ok(HttpResponse::Ok().json(show_written(&state, &written)))
}

async fn delete(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::delete(&state.services, &key.1, ChannelId(id(&path, "channel")?)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Sends the confirmation request by mail again.
async fn ask_again(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    service::ask_again(&state.services, &key.1, ChannelId(id(&path, "channel")?)).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// Sends a test alert through the outbox, like any alert. The caller reads the result from the delivery.
async fn send_test(
    key: MayManageChannels,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let delivery = service::send_test(&state.services, &key.1, ChannelId(id(&path, "channel")?)).await?;
    Ok(HttpResponse::Accepted().json(json!({"delivery_id": delivery})))
}
