//! A page with one form: a title, some fields, a button.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use askama::Template;
use deadbeat_domain::monitor::FieldError;
use deadbeat_services::ServiceError;

use crate::state::AppState;
use crate::web::people::csrf;
use crate::web::people::session::{SignedIn, add_cookie};
use crate::web::{Frame, PageError, html};

/// A field of a form.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub label: &'static str,
    pub name: &'static str,
    /// The type of the input.
    pub input: &'static str,
    pub autocomplete: &'static str,
    pub value: String,
}

impl Field {
    fn new(label: &'static str, name: &'static str, input: &'static str, autocomplete: &'static str) -> Self {
        Self {
            label,
            name,
            input,
            autocomplete,
            value: String::new(),
        }
    }

    /// The field for a password that exists.
    pub fn password(label: &'static str, name: &'static str) -> Self {
        Self::new(label, name, "password", "current-password")
    }

    /// The field for a new password.
    pub fn new_password() -> Self {
        Self::new("New password", "new_password", "password", "new-password")
    }

    /// The field for a mail address. Not of type `email`: browsers refuse some addresses, and the server decides anyway.
    pub fn email(label: &'static str, value: &str) -> Self {
        Self {
            value: value.to_owned(),
            ..Self::new(label, "email", "text", "email")
        }
    }

    /// The field for a code.
    pub fn code(label: &'static str) -> Self {
        Self::new(label, "code", "text", "one-time-code")
    }
}

/// A page with one form, or with a message alone.
#[derive(Template)]
#[template(path = "account/form.html")]
pub(super) struct FormPage {
    frame: Frame,
    title: &'static str,
    text: String,
    /// Lines to copy: recovery codes, or the secret of an authenticator.
    lines: Vec<String>,
    refusal: Option<String>,
    /// The address that the form posts to. None: there is no form.
    action: Option<String>,
    form_token: String,
    fields: Vec<Field>,
    button: &'static str,
    way: Option<(&'static str, &'static str)>,
}

impl FormPage {
    /// A message without a form.
    pub fn message(title: &'static str, text: impl Into<String>) -> Self {
        Self {
            frame: Frame::default(),
            title,
            text: text.into(),
            lines: Vec::new(),
            refusal: None,
            action: None,
            form_token: String::new(),
            fields: Vec::new(),
            button: "",
            way: None,
        }
    }

    /// A form.
    pub fn form(
        title: &'static str,
        text: impl Into<String>,
        action: impl Into<String>,
        fields: Vec<Field>,
        button: &'static str,
    ) -> Self {
        Self {
            action: Some(action.into()),
            fields,
            button,
            ..Self::message(title, text)
        }
    }

    /// The same page with a link onward.
    pub fn with_way(self, path: &'static str, text: &'static str) -> Self {
        Self {
            way: Some((path, text)),
            ..self
        }
    }

    /// The same page with lines to copy.
    pub fn with_lines(self, lines: Vec<String>) -> Self {
        Self { lines, ..self }
    }

    /// The same page with the reason why the form was refused.
    pub fn refusing(self, refusal: impl Into<String>) -> Self {
        Self {
            refusal: Some(refusal.into()),
            ..self
        }
    }

    fn status(&self) -> StatusCode {
        if self.refusal.is_some() {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::OK
        }
    }

    /// Shows the page to somebody who is signed in.
    pub fn show(self, signed_in: &SignedIn) -> HttpResponse {
        let page = Self {
            frame: signed_in.frame(),
            form_token: csrf::token(&signed_in.session),
            ..self
        };
        html(page.status(), &page)
    }

    /// Shows the page to a visitor.
    pub fn show_visitor(self, visitor: String, state: &AppState) -> HttpResponse {
        let page = Self {
            form_token: csrf::token(&visitor),
            ..self
        };
        let mut answer = html(page.status(), &page);
        add_cookie(&mut answer, &csrf::visitor_cookie(visitor, state.is_https));
        answer
    }
}

/// Returns the words of refused fields, for the form; passes other errors on.
///
/// # Errors
/// The error is about something else than a field.
pub(super) fn words(error: ServiceError) -> Result<String, PageError> {
    match error {
        ServiceError::Invalid(faults) => Ok(faults.iter().map(sentence).collect::<Vec<_>>().join(" ")),
        ServiceError::Conflict(words) => Ok(format!("{words}.")),
        other => Err(other.into()),
    }
}

fn sentence(fault: &FieldError) -> String {
    let subject = match fault.pointer.as_str() {
        "/email" => "The mail address",
        _ => "The password",
    };
    format!("{subject} {}.", fault.message)
}
