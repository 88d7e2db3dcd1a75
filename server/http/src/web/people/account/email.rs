//! `/account/email`: another mail address, and the links of its mails.

use actix_web::http::Method;
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_domain::people::account::LinkKind;
use deadbeat_services::people::account::address;

use super::form::{Field, FormPage, words};
use crate::state::AppState;
use crate::web::people::csrf::{self, SessionForm, VisitorForm};
use crate::web::people::session::{SignedIn, client};
use crate::web::{PageError, wrong_method};

const PAGE: &str = "/account/email";

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/account/email")
                .route(web::get().to(page))
                .route(web::method(Method::HEAD).to(page))
                .route(web::post().to(ask))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/account/email/confirm/{token}")
                .route(web::get().to(confirm_page))
                .route(web::method(Method::HEAD).to(confirm_page))
                .route(web::post().to(confirm))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/account/email/undo/{token}")
                .route(web::get().to(undo_page))
                .route(web::method(Method::HEAD).to(undo_page))
                .route(web::post().to(undo))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        );
}

fn form(value: &str) -> FormPage {
    FormPage::form(
        "Change the mail address",
        "The new address gets a mail with a link, which makes the change. The present one gets a mail with a link that undoes it.",
        PAGE,
        vec![Field::email("New mail address", value)],
        "Send the link",
    )
    .with_way("/account", "Back to the account")
}

async fn page(state: Data<AppState>, signed_in: SignedIn) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    Ok(form("").show(&signed_in))
}

async fn ask(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    posted: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    let email = posted.fields.get("email");
    let client = client(&request, &state);
    match address::ask(&state.services, &signed_in.own, email, &client).await {
        Ok(()) => Ok(FormPage::message(
            "Look into your mail",
            "A mail is on its way to the new address. Open its link within an hour.",
        )
        .with_way("/account", "Back to the account")
        .show(&signed_in)),
        Err(error) => Ok(form(email).refusing(words(error)?).show(&signed_in)),
    }
}

async fn inspect(
    request: &HttpRequest,
    state: &AppState,
    kind: LinkKind,
    token: &str,
) -> Result<String, PageError> {
    let client = client(request, state);
    address::inspect(&state.services, kind, token, &client)
        .await?
        .ok_or(PageError::NotFound("link"))
}

async fn confirm_page(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
) -> Result<HttpResponse, PageError> {
    let email = inspect(&request, &state, LinkKind::NewMail, &token).await?;
    let text = format!("Your account gets the mail address {email}.");
    // Only a right token gets here. It consists of letters and digits, so it needs no escaping.
    let action = format!("/account/email/confirm/{token}");
    Ok(
        FormPage::form("Use this mail address?", text, action, Vec::new(), "Use it")
            .show_visitor(csrf::visitor(&request), &state),
    )
}

async fn confirm(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
    posted: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let client = client(&request, &state);
    let changed = address::follow(&state.services, LinkKind::NewMail, &token, &client).await?;
    let email = changed.ok_or(PageError::NotFound("link"))?;
    let text = format!("Sign in with {email} from now on.");
    Ok(FormPage::message("The mail address is changed", text)
        .with_way("/account", "To the account")
        .show_visitor(posted.visitor, &state))
}

async fn undo_page(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
) -> Result<HttpResponse, PageError> {
    let email = inspect(&request, &state, LinkKind::UndoMail, &token).await?;
    let text = format!("Your account gets the mail address {email} again, and all its sessions end.");
    let action = format!("/account/email/undo/{token}");
    Ok(
        FormPage::form("Undo the change?", text, action, Vec::new(), "Undo it")
            .show_visitor(csrf::visitor(&request), &state),
    )
}

async fn undo(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
    posted: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let client = client(&request, &state);
    let changed = address::follow(&state.services, LinkKind::UndoMail, &token, &client).await?;
    let email = changed.ok_or(PageError::NotFound("link"))?;
    let text = format!(
        "Your account has the mail address {email} again. Somebody else may know its password: set a new one now."
    );
    Ok(FormPage::message("The change is undone", text)
        .with_way("/reset", "Set a new password")
        .show_visitor(posted.visitor, &state))
}
