//! `/sign-in/mail`, `/sign-in/code`, `/sign-in/factor`: a sign-in in steps. A cookie has the secret of the step.

use actix_web::http::Method;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_services::people::account::{SignIn, code, factor};

use super::form::{Field, FormPage};
use crate::state::AppState;
use crate::web::people::csrf::{self, VisitorForm};
use crate::web::people::session::{Refused, STEP_COOKIE, add_cookie, client, signed_in, step_cookie};
use crate::web::{PageError, see_other, wrong_method};

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/sign-in/mail")
                .route(web::get().to(mail_page))
                .route(web::method(Method::HEAD).to(mail_page))
                .route(web::post().to(mail))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/sign-in/code")
                .route(web::get().to(code_page))
                .route(web::method(Method::HEAD).to(code_page))
                .route(web::post().to(enter_code))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/sign-in/factor")
                .route(web::get().to(factor_page))
                .route(web::method(Method::HEAD).to(factor_page))
                .route(web::post().to(enter_factor))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        );
}

const AGAIN: (&str, &str) = ("/sign-in", "Back to the sign-in page");

async fn mail_page(request: HttpRequest, state: Data<AppState>) -> HttpResponse {
    FormPage::form(
        "Sign in with a code by mail",
        "You get a mail with a code, if there is an account of this address. Enter it in this browser.",
        "/sign-in/mail",
        vec![Field::email("Mail address", "")],
        "Send the code",
    )
    .with_way(AGAIN.0, AGAIN.1)
    .show_visitor(csrf::visitor(&request), &state)
}

async fn mail(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let client = client(&request, &state);
    let step = code::ask(&state.services, form.fields.get("email"), &client).await?;
    let mut answer = see_other("/sign-in/code");
    add_cookie(&mut answer, &step_cookie(step, state.is_https));
    Ok(answer)
}

fn code_form() -> FormPage {
    FormPage::form(
        "Enter the code",
        "If there is an account of the address, a mail with a code is on its way. The code works once, for ten minutes, in this browser.",
        "/sign-in/code",
        vec![Field::code("Code")],
        "Sign in",
    )
    .with_way("/sign-in/mail", "Ask for another code")
}

async fn code_page(request: HttpRequest, state: Data<AppState>) -> HttpResponse {
    code_form().show_visitor(csrf::visitor(&request), &state)
}

async fn enter_code(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let given = form.fields.get("code").to_owned();
    let client = client(&request, &state);
    let done = match STEP_COOKIE.value(&request) {
        Some(step) => code::enter(&state.services, &step, &given, &client).await?,
        None => SignIn::Over,
    };
    answer(&state, done, code_form(), form)
}

fn factor_form() -> FormPage {
    FormPage::form(
        "Second factor",
        "Enter the code that your authenticator shows now, or one of your recovery codes.",
        "/sign-in/factor",
        vec![Field::code("Code")],
        "Sign in",
    )
    .with_way(AGAIN.0, AGAIN.1)
}

async fn factor_page(request: HttpRequest, state: Data<AppState>) -> HttpResponse {
    factor_form().show_visitor(csrf::visitor(&request), &state)
}

async fn enter_factor(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let given = form.fields.get("code").to_owned();
    let client = client(&request, &state);
    let done = match STEP_COOKIE.value(&request) {
        Some(step) => factor::enter(&state.services, &step, &given, &client).await?,
        None => SignIn::Over,
    };
    answer(&state, done, factor_form(), form)
}

fn answer(
    state: &AppState,
    done: SignIn,
    page: FormPage,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    signed_in(state, done).unwrap_or_else(|refused| {
        let words = match refused {
            Refused::Wrong => "The code is wrong.",
            Refused::Over => "This sign-in has ended. Begin again.",
            Refused::TooSoon(wait) => return Err(PageError::TooManyTries(wait)),
        };
        Ok(page.refusing(words).show_visitor(form.visitor, state))
    })
}
