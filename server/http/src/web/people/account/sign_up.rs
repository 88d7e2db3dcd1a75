//! `/sign-up`: accounts that people make themselves.

use actix_web::http::Method;
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_domain::people::account::SignUp;
use deadbeat_services::people::account::sign_up;

use super::form::{Field, FormPage, words};
use crate::state::AppState;
use crate::web::people::csrf::{self, VisitorForm};
use crate::web::people::session::{add_session, client};
use crate::web::{PageError, see_other, wrong_method};

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/sign-up")
                .route(web::get().to(page))
                .route(web::method(Method::HEAD).to(page))
                .route(web::post().to(ask))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/sign-up/{token}")
                .route(web::get().to(follow_page))
                .route(web::method(Method::HEAD).to(follow_page))
                .route(web::post().to(follow))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        );
}

async fn page(request: HttpRequest, state: Data<AppState>) -> HttpResponse {
    let visitor = csrf::visitor(&request);
    let page = match state.services.sign_up() {
        SignUp::Open(domains) => FormPage::form(
            "Make an account",
            format!(
                "You get a mail with a link. Mail addresses of these domains are allowed: {}.",
                domains.join(", ")
            ),
            "/sign-up",
            vec![Field::email("Mail address", "")],
            "Send the link",
        ),
        SignUp::Invite => FormPage::message(
            "Accounts need an invitation",
            "Ask somebody of your team to invite you to a project.",
        ),
        SignUp::Closed => FormPage::message(
            "Nobody can sign up here",
            "The operator of this server makes the accounts: ask there.",
        ),
    };
    page.with_way("/sign-in", "Back to the sign-in page")
        .show_visitor(visitor, &state)
}

async fn ask(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    if !matches!(state.services.sign_up(), SignUp::Open(_)) {
        return Ok(page(request, state).await);
    }
    let client = client(&request, &state);
    sign_up::ask(&state.services, form.fields.get("email"), &client).await?;
    let text = "If this address may have an account here, a mail with a link is on its way. The link works once, for a day.";
    Ok(FormPage::message("Look into your mail", text)
        .with_way("/sign-in", "Back to the sign-in page")
        .show_visitor(form.visitor, &state))
}

fn follow_form(token: &str, email: &str) -> FormPage {
    FormPage::form(
        "Finish your account",
        format!("The mail address of your account is {email}. Choose a password."),
        format!("/sign-up/{token}"),
        vec![Field::new_password()],
        "Make the account",
    )
}

async fn follow_page(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
) -> Result<HttpResponse, PageError> {
    let found = sign_up::inspect(&state.services, &token, &client(&request, &state)).await?;
    let email = found.ok_or(PageError::NotFound("link"))?;
    // Only a right token gets here. It consists of letters and digits, so it needs no escaping.
    Ok(follow_form(&token, &email).show_visitor(csrf::visitor(&request), &state))
}

async fn follow(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let client = client(&request, &state);
    let found = sign_up::inspect(&state.services, &token, &client).await?;
    let email = found.ok_or(PageError::NotFound("link"))?;
    let password = form.fields.get("new_password");
    match sign_up::follow(&state.services, &token, password, &client).await {
        Ok(Some(session)) => {
            let mut answer = see_other("/");
            add_session(&mut answer, session, &state);
            Ok(answer)
        }
        Ok(None) => Err(PageError::NotFound("link")),
        Err(error) => Ok(follow_form(&token, &email)
            .refusing(words(error)?)
            .show_visitor(form.visitor, &state)),
    }
}
