//! `/account`: sessions, password, mail address and second factor of one's own account, and what belongs to it (ADR 046).

mod email;
mod factor;
mod form;
mod password;
mod sign_up;
mod steps;

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use deadbeat_domain::ids::SessionId;
use deadbeat_domain::people::account::AccountAct;
use deadbeat_services::people::account::{factor as factors, leave, session as sessions};
use uuid::Uuid;

use self::form::{Field, FormPage, words};
use crate::state::AppState;
use crate::web::format::Moment;
use crate::web::people::csrf::{self, SessionForm};
use crate::web::people::session::{SignedIn, client, remove_session};
use crate::web::{Frame, PageError, html, see_other, wrong_method};

const DELETE_PAGE: &str = "/account/delete";

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/account")
                .route(web::get().to(page))
                .route(web::method(Method::HEAD).to(page))
                .default_service(web::to(|| wrong_method("GET, HEAD"))),
        )
        .service(
            web::resource("/account/sessions/end-others")
                .route(web::post().to(end_others))
                .default_service(web::to(|| wrong_method("POST"))),
        )
        .service(
            web::resource("/account/sessions/{id}/end")
                .route(web::post().to(end_one))
                .default_service(web::to(|| wrong_method("POST"))),
        )
        .service(
            web::resource("/account/export")
                .route(web::post().to(export))
                .default_service(web::to(|| wrong_method("POST"))),
        )
        .service(
            web::resource("/account/delete")
                .route(web::get().to(delete_page))
                .route(web::method(Method::HEAD).to(delete_page))
                .route(web::post().to(delete))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .configure(password::configure)
        .configure(email::configure)
        .configure(factor::configure)
        .configure(sign_up::configure)
        .configure(steps::configure);
}

struct SessionRow {
    id: SessionId,
    device: String,
    address: String,
    began: Moment,
    seen: Moment,
    is_this_one: bool,
}

struct EventRow {
    at: Moment,
    what: String,
    device: String,
    address: String,
}

#[derive(Template)]
#[template(path = "account/index.html")]
struct AccountPage {
    frame: Frame,
    form_token: String,
    email: String,
    sessions: Vec<SessionRow>,
    events: Vec<EventRow>,
    /// How many recovery codes are left. None: the second factor is off.
    codes_left: Option<i64>,
}

async fn page(state: Data<AppState>, signed_in: SignedIn) -> Result<HttpResponse, PageError> {
    let (services, own, now) = (&state.services, &signed_in.own, state.now());
    let rows = sessions::list(services, own).await?;
    let events = sessions::events(services, own).await?;
    let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    let page = AccountPage {
        frame: signed_in.frame(),
        form_token: csrf::token(&signed_in.session),
        email: signed_in.account.email.clone(),
        sessions: rows
            .into_iter()
            .map(|row| SessionRow {
                is_this_one: row.id == own.id,
                id: row.id,
                device: known(row.device),
                address: known(row.address),
                began: Moment::at(row.created_at, now),
                seen: Moment::at(row.seen_at, now),
            })
            .collect(),
        events: events
            .into_iter()
            .map(|event| EventRow {
                at: Moment::at(event.at, now),
                what: AccountAct::words_of(&event.action),
                device: known(event.device),
                address: known(event.address),
            })
            .collect(),
        codes_left: factors::state(services, own).await?.map(|on| on.codes_left),
    };
    Ok(html(StatusCode::OK, &page))
}

async fn end_one(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    id: Path<String>,
    _form: SessionForm,
) -> Result<HttpResponse, PageError> {
    let id = Uuid::try_parse(&id).map_err(|_| PageError::NotFound("session"))?;
    let client = client(&request, &state);
    if !sessions::end_one(&state.services, &signed_in.own, SessionId(id), &client).await? {
        return Err(PageError::NotFound("session"));
    }
    Ok(see_other("/account"))
}

async fn end_others(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    _form: SessionForm,
) -> Result<HttpResponse, PageError> {
    sessions::end_others(&state.services, &signed_in.own, &client(&request, &state)).await?;
    Ok(see_other("/account"))
}

async fn export(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    _form: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, "/account")?;
    let data = leave::export(&state.services, &signed_in.own, &client(&request, &state)).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"deadbeat-account.json\"",
        ))
        .json(data))
}

fn delete_form(email: &str) -> FormPage {
    FormPage::form(
        "Delete your account",
        format!(
            "Your account, its sessions and its memberships are deleted for good. Projects stay. To go on, enter your mail address: {email}"
        ),
        DELETE_PAGE,
        vec![Field::email("Mail address", "")],
        "Delete the account",
    )
    .with_way("/account", "Back to the account")
}

async fn delete_page(state: Data<AppState>, signed_in: SignedIn) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, DELETE_PAGE)?;
    Ok(delete_form(&signed_in.account.email).show(&signed_in))
}

async fn delete(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, DELETE_PAGE)?;
    let email = &signed_in.account.email;
    if form.fields.get("email").trim().to_lowercase() != *email {
        return Ok(delete_form(email)
            .refusing("This is not the mail address of your account.")
            .show(&signed_in));
    }
    match leave::delete(&state.services, &signed_in.own, &client(&request, &state)).await {
        Ok(()) => {
            let mut answer = see_other("/sign-in");
            remove_session(&mut answer, &state);
            Ok(answer)
        }
        Err(error) => Ok(delete_form(email).refusing(words(error)?).show(&signed_in)),
    }
}
