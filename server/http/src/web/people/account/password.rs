//! `/account/prove`, `/account/password`, `/reset`: passwords.

use actix_web::http::Method;
use actix_web::web::{self, Data, Path, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use deadbeat_services::people::account::password::{self, Changed};
use deadbeat_services::people::account::{factor, session as sessions};
use serde::Deserialize;

use super::form::{Field, FormPage, words};
use crate::state::AppState;
use crate::web::people::csrf::{self, SessionForm, VisitorForm};
use crate::web::people::session::{SignedIn, add_session, client};
use crate::web::{PageError, see_other, wrong_method};

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/account/prove")
                .route(web::get().to(prove_page))
                .route(web::method(Method::HEAD).to(prove_page))
                .route(web::post().to(prove))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/account/password")
                .route(web::get().to(change_page))
                .route(web::method(Method::HEAD).to(change_page))
                .route(web::post().to(change))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/reset")
                .route(web::get().to(ask_page))
                .route(web::method(Method::HEAD).to(ask_page))
                .route(web::post().to(ask))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        )
        .service(
            web::resource("/reset/{token}")
                .route(web::get().to(reset_page))
                .route(web::method(Method::HEAD).to(reset_page))
                .route(web::post().to(reset))
                .default_service(web::to(|| wrong_method("GET, HEAD, POST"))),
        );
}

#[derive(Debug, Default, Deserialize)]
struct Onward {
    #[serde(default)]
    next: String,
}

/// Returns the path of a page of this server. Anything else, such as `//evil.test`, becomes the account's page: nobody may make a link that
/// leads from this form to another site.
fn onward(next: &str) -> &str {
    let is_plain = next
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_'));
    if next.starts_with('/') && !next.starts_with("//") && is_plain && next.len() <= 200 {
        next
    } else {
        "/account"
    }
}

async fn prove_form(state: &AppState, signed_in: &SignedIn, next: &str) -> Result<FormPage, PageError> {
    let mut fields = vec![Field::password("Password", "password")];
    if factor::state(&state.services, &signed_in.own).await?.is_some() {
        fields.push(Field::code("Code of your authenticator, or a recovery code"));
    }
    Ok(FormPage::form(
        "Is it you?",
        "This needs your password, because you gave it some time ago.",
        format!("/account/prove?next={}", onward(next)),
        fields,
        "Go on",
    )
    .with_way("/account", "Back to the account"))
}

async fn prove_page(
    state: Data<AppState>,
    signed_in: SignedIn,
    next: Option<Query<Onward>>,
) -> Result<HttpResponse, PageError> {
    let next = next.map(Query::into_inner).unwrap_or_default().next;
    Ok(prove_form(&state, &signed_in, &next).await?.show(&signed_in))
}

async fn prove(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    next: Option<Query<Onward>>,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    let next = next.map(Query::into_inner).unwrap_or_default().next;
    let (given, code) = (form.fields.get("password"), form.fields.get("code"));
    let client = client(&request, &state);
    match sessions::prove(
        &state.services,
        &signed_in.own,
        &form.session,
        given,
        code,
        &client,
    )
    .await?
    {
        sessions::Proof::Accepted(session) => {
            let mut answer = see_other(onward(&next));
            add_session(&mut answer, session, &state);
            Ok(answer)
        }
        sessions::Proof::Refused => Ok(prove_form(&state, &signed_in, &next)
            .await?
            .refusing("The password or the code is wrong.")
            .show(&signed_in)),
        sessions::Proof::TooSoon(wait) => Err(PageError::TooManyTries(wait)),
    }
}

fn change_form() -> FormPage {
    FormPage::form(
        "Change the password",
        "All other sessions of your account end.",
        "/account/password",
        vec![
            Field::password("Present password", "password"),
            Field::new_password(),
        ],
        "Change the password",
    )
    .with_way("/account", "Back to the account")
}

async fn change_page(signed_in: SignedIn) -> HttpResponse {
    change_form().show(&signed_in)
}

async fn change(
    request: HttpRequest,
    state: Data<AppState>,
    signed_in: SignedIn,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    let (old, new) = (form.fields.get("password"), form.fields.get("new_password"));
    let client = client(&request, &state);
    let changed = password::change(&state.services, &signed_in.own, &form.session, old, new, &client).await;
    match changed {
        Ok(Changed::Done(session)) => {
            let mut answer = see_other("/account");
            add_session(&mut answer, session, &state);
            Ok(answer)
        }
        Ok(Changed::Refused) => Ok(change_form()
            .refusing("The present password is wrong.")
            .show(&signed_in)),
        Ok(Changed::TooSoon(wait)) => Err(PageError::TooManyTries(wait)),
        Err(error) => Ok(change_form().refusing(words(error)?).show(&signed_in)),
    }
}

async fn ask_page(request: HttpRequest, state: Data<AppState>) -> HttpResponse {
    let fields = vec![Field::email("Mail address", "")];
    let text = "You get a mail with a link, if there is an account of this address.";
    FormPage::form("Set a new password", text, "/reset", fields, "Send the link")
        .with_way("/sign-in", "Back to the sign-in page")
        .show_visitor(csrf::visitor(&request), &state)
}

async fn ask(
    request: HttpRequest,
    state: Data<AppState>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let client = client(&request, &state);
    password::ask_reset(&state.services, form.fields.get("email"), &client).await?;
    let text = "If there is an account of this address, a mail with a link is on its way. The link works once, for an hour.";
    Ok(FormPage::message("Look into your mail", text)
        .with_way("/sign-in", "Back to the sign-in page")
        .show_visitor(form.visitor, &state))
}

fn reset_form(token: &str) -> FormPage {
    FormPage::form(
        "Set a new password",
        "All sessions of your account end. Then sign in with the new password.",
        format!("/reset/{token}"),
        vec![Field::new_password()],
        "Set the password",
    )
}

async fn reset_page(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
) -> Result<HttpResponse, PageError> {
    if !password::is_reset(&state.services, &token, &client(&request, &state)).await? {
        return Err(PageError::NotFound("link"));
    }
    // Only a right token gets here. It consists of letters and digits, so it needs no escaping.
    Ok(reset_form(&token).show_visitor(csrf::visitor(&request), &state))
}

async fn reset(
    request: HttpRequest,
    state: Data<AppState>,
    token: Path<String>,
    form: VisitorForm,
) -> Result<HttpResponse, PageError> {
    let new = form.fields.get("new_password");
    match password::reset(&state.services, &token, new, &client(&request, &state)).await {
        Ok(true) => Ok(
            FormPage::message("The password is set", "All sessions of your account have ended.")
                .with_way("/sign-in", "Sign in")
                .show_visitor(form.visitor, &state),
        ),
        Ok(false) => Err(PageError::NotFound("link")),
        Err(error) => Ok(reset_form(&token)
            .refusing(words(error)?)
            .show_visitor(form.visitor, &state)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_leads_to_pages_of_this_server_only() {
        for next in ["/account/delete", "/account/factor", "/"] {
            assert_eq!(onward(next), next);
        }
        for other in [
            "",
            "account",
            "//evil.test",
            "/\\evil.test",
            "https://evil.test",
            "/account\r\nSet-Cookie: a=b",
            "/account?x=1",
            "/%2f/evil.test",
            &"/a".repeat(200),
        ] {
            assert_eq!(onward(other), "/account", "{other}");
        }
    }
}
