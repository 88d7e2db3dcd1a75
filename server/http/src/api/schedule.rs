//! Previews: what a schedule means, before any monitor has it.

use std::sync::LazyLock;
use std::time::Duration;

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::json::instant;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::schedule::{Schedule, zone};
use deadbeat_services::ServiceError;
use deadbeat_store::connection::turns::Turns;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::json::{Json, given, given_instant};
use crate::problem::Problem;
use crate::state::AppState;

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/schedules/preview")
            .route(web::post().to(preview))
            .default_service(only("POST")),
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    schedule: Value,
    /// Slots strictly after this time; by default, after now.
    #[serde(default, deserialize_with = "given_instant")]
    after: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "given")]
    count: Option<i64>,
}

/// Limits how many previews the process computes at once, in all and for one project. 500 solar slots take some hundredths of a second of CPU time.
/// Previews therefore run on other threads than those that answer pings.
static TURNS: LazyLock<Turns<ProjectId>> =
    LazyLock::new(|| Turns::new(2, 1, Duration::from_secs(10)).with_queue(50));

async fn preview(key: MayRead, state: Data<AppState>, asked: Json<Asked>) -> Result<HttpResponse, ApiError> {
    let Asked {
        schedule,
        after,
        count,
    } = asked.read().await?;
    let mut faults = Vec::new();
    let count = count.unwrap_or(limits::PREVIEW_DEFAULT);
    if !(1..=limits::PREVIEW_MAX).contains(&count) {
        faults.push(FieldError::new(
            "/count",
            format!("is {count}; 1 to {} is allowed", limits::PREVIEW_MAX),
        ));
    }
    let after = after.unwrap_or_else(|| state.now());
    let turn = TURNS.take(key.0).await.ok_or(ServiceError::Busy)?;
    let computed = web::block(move || {
        let _turn = turn;
        compute(&schedule, after, count, faults)
    });
    let preview = computed
        .await
        .map_err(|error| ApiError::new(Problem::Internal, error.to_string()))?
        .map_err(ApiError::fields)?;
    Ok(HttpResponse::Ok().json(preview))
}

/// Reads a schedule and computes its slots. Returns all faults of the request.
fn compute(
    schedule: &Value,
    after: DateTime<Utc>,
    count: i64,
    mut faults: Vec<FieldError>,
) -> Result<Value, Vec<FieldError>> {
    match Schedule::from_json(schedule) {
        Ok(schedule) if faults.is_empty() => {
            let count = usize::try_from(count).unwrap_or_default();
            let slots: Vec<String> = schedule.slots(after).take(count).map(instant).collect();
            Ok(json!({
                "slots": slots,
                "summary": schedule.summary(),
                "schedule": schedule.to_json(),
                "time_zone_database": zone::database_version(),
                "time_zone_origin": zone::data::origin().as_str(),
            }))
        }
        Ok(_) => Err(faults),
        Err(error) => {
            faults.push(FieldError::of_schedule("/schedule", error));
            Err(faults)
        }
    }
}
