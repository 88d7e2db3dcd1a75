//! What a schedule means, before any monitor has it.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use deadbeat_domain::json::instant;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::FieldError;
use deadbeat_domain::schedule::{Schedule, zone};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayRead;
use crate::extract::json::{Json, given, given_instant};
use crate::state::AppState;

/// The routes.
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
    /// Slots strictly after this; now when left out.
    #[serde(default, deserialize_with = "given_instant")]
    after: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "given")]
    count: Option<i64>,
}

async fn preview(_: MayRead, state: Data<AppState>, asked: Json<Asked>) -> Result<HttpResponse, ApiError> {
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
    match Schedule::from_json(&schedule) {
        Ok(schedule) if faults.is_empty() => {
            let after = after.unwrap_or_else(|| state.now());
            let count = usize::try_from(count).unwrap_or_default();
            let slots: Vec<String> = schedule.slots(after).take(count).map(instant).collect();
            Ok(HttpResponse::Ok().json(json!({
                "slots": slots,
                "summary": schedule.summary(),
                "schedule": schedule.to_json(),
                "time_zone_database": zone::database_version(),
                "time_zone_origin": zone::data::origin().as_str(),
            })))
        }
        Ok(_) => Err(ApiError::fields(faults)),
        Err(error) => {
            faults.push(FieldError::of_schedule("/schedule", error));
            Err(ApiError::fields(faults))
        }
    }
}
