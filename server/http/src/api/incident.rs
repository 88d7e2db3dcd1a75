//! Incidents: list, read, acknowledge.

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use deadbeat_domain::ids::IncidentId;
use deadbeat_domain::json::instant;
use deadbeat_services::incident::acknowledgement;
use deadbeat_store::incident::member;
use deadbeat_store::incident::{Filter, Incident};
use deadbeat_store::page::Page;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{id, only};
use crate::error::ApiError;
use crate::extract::api_key::{MayAcknowledge, MayRead};
use crate::extract::paging::{Query, cut, one_more};
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/incidents")
                .route(web::get().to(list))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/incidents/{id}")
                .route(web::get().to(read))
                .default_service(only("GET")),
        )
        .service(
            web::resource("/incidents/{id}/acknowledge")
                .route(web::post().to(acknowledge))
                .default_service(only("POST")),
        );
}

/// Returns incidents as the API shows them, with the monitors that are down because of them.
async fn shown(state: &AppState, incidents: &[Incident]) -> Result<Vec<Value>, ApiError> {
    let Some(project) = incidents.first().map(|incident| incident.project_id) else {
        return Ok(Vec::new());
    };
    let ids: Vec<IncidentId> = incidents.iter().map(|incident| incident.id).collect();
    let members = member::members(&state.reader(), project, &ids).await?;
    Ok(incidents
        .iter()
        .map(|incident| {
            let members: Vec<Value> = members
                .iter()
                .filter(|(of, ..)| *of == incident.id)
                .map(|(_, id, name)| json!({"id": id, "name": name}))
                .collect();
            let evidence: Vec<Value> = incident
                .evidence
                .iter()
                .map(|fact| json!({"at": fact.at.map(instant), "fact": fact.fact}))
                .collect();
            json!({
                "id": incident.id,
                "subject": incident.subject,
                "cause": cause(state, incident),
                "severity": incident.severity,
                "evidence": evidence,
                "repair": incident.repair,
                "members": members,
                "flapping": incident.is_flapping,
                "opened_at": instant(incident.opened_at),
                "resolved_at": incident.resolved_at.map(instant),
                "acknowledged_at": incident.acknowledged_at.map(instant),
                "acknowledged_by": incident.acknowledged_by,
            })
        })
        .collect())
}

/// Returns an incident's cause, with the URL of its page.
fn cause(state: &AppState, incident: &Incident) -> Value {
    let url = state.services.site().cause_url(incident.cause);
    json!({"code": incident.cause.as_str(), "summary": incident.summary, "url": url})
}

async fn show_one(state: &AppState, incident: Incident) -> Result<HttpResponse, ApiError> {
    let shown = shown(state, std::slice::from_ref(&incident)).await?;
    Ok(HttpResponse::Ok().json(shown.into_iter().next().unwrap_or_default()))
}

async fn list(request: HttpRequest, key: MayRead, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&request, &["limit", "cursor", "state", "subject_id"])?;
    let page = query.page::<Uuid>()?;
    let open = match query.get("state") {
        None => None,
        Some("open") => Some(true),
        Some("resolved") => Some(false),
        Some(_) => {
            return Err(ApiError::new(
                Problem::InvalidQuery,
                "state is not one of open, resolved",
            ));
        }
    };
    let filter = Filter {
        open,
        subject_id: query.parse("subject_id", "the id of a monitor or a Beat")?,
    };
    let after = Page {
        after: page.after.map(IncidentId),
        limit: one_more(&page).limit,
    };
    let rows = deadbeat_store::incident::list(&state.reader(), key.0, &filter, after).await?;
    let (rows, next) = cut(rows, page.limit, |incident| incident.id.to_string());
    Ok(HttpResponse::Ok().json(json!({"incidents": shown(&state, &rows).await?, "next_cursor": next})))
}

async fn read(key: MayRead, state: Data<AppState>, path: Path<String>) -> Result<HttpResponse, ApiError> {
    let incident =
        deadbeat_store::incident::get(&state.reader(), key.0, IncidentId(id(&path, "incident")?)).await?;
    show_one(&state, incident.ok_or_else(|| ApiError::not_found("incident"))?).await
}

async fn acknowledge(
    key: MayAcknowledge,
    state: Data<AppState>,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let incident =
        acknowledgement::acknowledge(&state.services, &key.1, IncidentId(id(&path, "incident")?)).await?;
    show_one(&state, incident).await
}
