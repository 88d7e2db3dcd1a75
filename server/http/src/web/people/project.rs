//! `/projects/new`: a person makes a project of their own.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use deadbeat_domain::ids::ProjectId;
use deadbeat_services::ServiceError;
use deadbeat_services::people::account::session;
use deadbeat_services::people::project;

use super::csrf::SessionForm;
use super::session::{SignedIn, client};
use crate::extract::peer::client_ip;
use crate::state::AppState;
use crate::web::{Frame, PageError, html};

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/projects/new")
            .route(web::get().to(form))
            .route(web::method(Method::HEAD).to(form))
            .route(web::post().to(create))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
            })),
    );
}

#[derive(Template)]
#[template(path = "project/new.html")]
struct NewPage {
    frame: Frame,
    form_token: String,
    name: String,
    refusal: Option<String>,
}

/// The new project with its keys. Only this answer shows them.
#[derive(Template)]
#[template(path = "project/made.html")]
struct MadePage {
    frame: Frame,
    name: String,
    id: ProjectId,
    keys: Vec<(&'static str, String)>,
}

fn page(status: StatusCode, frame: Frame, name: &str, refusal: Option<String>) -> HttpResponse {
    let form_token = frame
        .account
        .as_ref()
        .map(|account| account.form_token.clone())
        .unwrap_or_default();
    let page = NewPage {
        frame,
        form_token,
        name: name.to_owned(),
        refusal,
    };
    html(status, &page)
}

async fn form(known: SignedIn) -> HttpResponse {
    page(StatusCode::OK, known.frame(), "", None)
}

async fn create(
    request: HttpRequest,
    state: Data<AppState>,
    known: SignedIn,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    let name = form.fields.get("name");
    // The form's token belongs to a session, and that session must still be valid.
    let session = session::find(&state.services, &form.session, &client(&request, &state)).await?;
    let account = session.ok_or(PageError::NotSignedIn)?.account;
    let made =
        project::create_by_account(&state.services, account.id, name, client_ip(&request, &state)).await;
    match made {
        Ok(made) => {
            let page = MadePage {
                frame: known.frame(),
                name: made.project.name,
                id: made.project.id,
                keys: vec![
                    ("API key", made.api_key),
                    ("Read key", made.read_key),
                    ("Ping key", made.ping_key),
                ],
            };
            Ok(html(StatusCode::CREATED, &page))
        }
        Err(ServiceError::Invalid(faults)) => {
            let texts: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
            let refusal = format!("The name {}.", texts.join("; "));
            Ok(page(
                StatusCode::UNPROCESSABLE_ENTITY,
                known.frame(),
                name,
                Some(refusal),
            ))
        }
        Err(ServiceError::Limit { limit, .. }) => {
            let refusal = format!("You own {limit} projects already, and may not own more.");
            Ok(page(StatusCode::FORBIDDEN, known.frame(), name, Some(refusal)))
        }
        Err(error) => Err(error.into()),
    }
}
