//! `/account/factor`: the second factor of an account.

use actix_web::http::Method;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_services::people::account::factor;

use super::form::{Field, FormPage, words};
use crate::state::AppState;
use crate::web::people::csrf::SessionForm;
use crate::web::people::session::{SignedIn, client};
use crate::web::{PageError, see_other, wrong_method};

const PAGE: &str = "/account/factor";

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/account/factor")
                .route(web::get().to(page))
                .route(web::method(Method::HEAD).to(page))
                .route(web::post().to(confirm))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/account/factor/new")
                .route(web::post().to(propose))
                .default_service(web::to(|| wrong_method("POST"))),
        )
        .service(
            web::resource("/account/factor/codes")
                .route(web::post().to(renew))
                .default_service(web::to(|| wrong_method("POST"))),
        )
        .service(
            web::resource("/account/factor/off")
                .route(web::post().to(switch_off))
                .default_service(web::to(|| wrong_method("POST"))),
        );
}

fn confirm_form(text: &str) -> FormPage {
    FormPage::form(
        "Second factor",
        text,
        PAGE,
        vec![Field::code("Code of your authenticator")],
        "Switch it on",
    )
    .with_way("/account", "Back to the account")
}

async fn page(state: Data<AppState>, signed_in: SignedIn) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    let page = if factor::state(&state.services, &signed_in.own).await?.is_some() {
        FormPage::message("Second factor", "The second factor is on.")
    } else {
        FormPage::form(
            "Second factor",
            "With a second factor, a sign-in needs a code of an authenticator on your telephone as well.",
            "/account/factor/new",
            Vec::new(),
            "Set up an authenticator",
        )
    };
    Ok(page.with_way("/account", "Back to the account").show(&signed_in))
}

async fn propose(
    state: Data<AppState>,
    signed_in: SignedIn,
    _form: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    match factor::propose(&state.services, &signed_in.own).await {
        Ok(proposal) => {
            let lines = vec![proposal.secret.to_string(), proposal.url.to_string()];
            let text = "Enter this secret in your authenticator, or open the address below it there. Both are shown only now.";
            Ok(confirm_form(text).with_lines(lines).show(&signed_in))
        }
        Err(error) => Ok(FormPage::message("Second factor", "")
            .refusing(words(error)?)
            .with_way("/account", "Back to the account")
            .show(&signed_in)),
    }
}

fn codes(title: &'static str, codes: Vec<String>, signed_in: &SignedIn) -> HttpResponse {
    let text = "Keep these recovery codes where you find them without your telephone. Each works once in place of a code. They are shown only now.";
    FormPage::message(title, text)
        .with_lines(codes)
        .with_way("/account", "I kept them")
        .show(signed_in)
}

async fn confirm(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    let client = client(&request, &state);
    let refusal =
        match factor::confirm(&state.services, &signed_in.own, form.fields.get("code"), &client).await {
            Ok(Some(new)) => return Ok(codes("The second factor is on", new, &signed_in)),
            Ok(None) => "The code is wrong. Check the clock of your telephone.".to_owned(),
            Err(error) => words(error)?,
        };
    Ok(confirm_form("Enter the code that your authenticator shows now.")
        .refusing(refusal)
        .show(&signed_in))
}

async fn renew(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    _form: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    let client = client(&request, &state);
    match factor::renew_codes(&state.services, &signed_in.own, &client).await? {
        Some(new) => Ok(codes("New recovery codes", new, &signed_in)),
        None => Ok(see_other(PAGE)),
    }
}

async fn switch_off(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    _form: SessionForm,
) -> Result<HttpResponse, PageError> {
    signed_in.must_be_recent(&state, PAGE)?;
    let client = client(&request, &state);
    factor::switch_off(&state.services, &signed_in.own, &client).await?;
    Ok(see_other("/account"))
}
