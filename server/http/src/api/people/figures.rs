//! The project's figures in the text format of Prometheus.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use deadbeat_store::people::figures::{self, ProjectFigures};

use crate::api::only;
use crate::error::ApiError;
use crate::extract::api_key::MayReadMetrics;
use crate::state::AppState;

/// Mounts the route.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/metrics")
            .route(web::get().to(read))
            .default_service(only("GET")),
    );
}

async fn read(key: MayReadMetrics, state: Data<AppState>) -> Result<HttpResponse, ApiError> {
    let found = figures::read(&state.reader(), key.0, state.now()).await?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(show(&found)))
}

/// Writes the figures. Every label is a constant, so nothing needs escaping.
fn show(found: &ProjectFigures) -> String {
    let mut text = String::from(
        "# HELP deadbeat_project_monitors Monitors of the project, by the status that is shown.\n\
         # TYPE deadbeat_project_monitors gauge\n",
    );
    for (status, count) in ["new", "up", "late", "down", "paused"].iter().zip(found.monitors) {
        text += &format!("deadbeat_project_monitors{{status=\"{status}\"}} {count}\n");
    }
    for (name, help, value) in [
        ("open_incidents", "Incidents that are open.", found.open_incidents),
        (
            "unacknowledged_incidents",
            "Open incidents that nobody has acknowledged.",
            found.unacknowledged_incidents,
        ),
        (
            "pending_deliveries",
            "Deliveries that wait to be sent.",
            found.pending_deliveries,
        ),
        ("channels", "Channels of the project.", found.channels),
    ] {
        text += &format!(
            "# HELP deadbeat_project_{name} {help}\n# TYPE deadbeat_project_{name} gauge\ndeadbeat_project_{name} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_a_help_a_type_and_a_value() {
        let text = show(&ProjectFigures {
            monitors: [1, 2, 3, 4, 5],
            open_incidents: 6,
            unacknowledged_incidents: 7,
            pending_deliveries: 8,
            channels: 9,
        });
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(values.len(), 9, "{text}");
        assert_eq!(values[2], "deadbeat_project_monitors{status=\"late\"} 3");
        assert_eq!(values[8], "deadbeat_project_channels 9");
        assert_eq!(text.matches("# TYPE").count(), 5);
    }
}
