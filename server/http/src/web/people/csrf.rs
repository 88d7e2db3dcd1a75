//! Posted forms. The server accepts only forms that one of its pages showed to this browser.
//!
//! A form carries a token that is derived from a secret in a cookie: the session's secret, or a visitor's secret before signing in. Another site can
//! make a browser send the cookie, but it can neither read the cookie nor compute the token. A browser also says from which site a request comes
//! (`Sec-Fetch-Site`, `Origin`). If that is another site, the server refuses the form.
//!
//! The extractors [`SessionForm`] and [`VisitorForm`] are the only way to a form's fields, so no handler can forget the
//! check.

use std::fmt::Write;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;

use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::{Data, Form};
use actix_web::{FromRequest, HttpRequest};
use deadbeat_services::secret;

use super::session;
use crate::state::AppState;
use crate::web::PageError;

/// The field of every form that contains the token.
pub const TOKEN_FIELD: &str = "form_token";
/// The cookie with the secret of a visitor who is not signed in.
const VISITOR_COOKIE: CookieName = CookieName {
    plain: "deadbeat_visitor",
    of_host: "__Host-deadbeat_visitor",
};
const VISITOR_CHARS: usize = 43;

/// A cookie's name. On a site with https the name has the prefix `__Host-`. A browser accepts such a cookie only from this host and only over https,
/// so no sibling domain can set it.
#[derive(Debug, Clone, Copy)]
pub struct CookieName {
    /// The name on a site without https, where browsers refuse that prefix.
    pub plain: &'static str,
    /// The name on a site with https.
    pub of_host: &'static str,
}

impl CookieName {
    /// Returns the cookie's name on this site.
    #[must_use]
    pub fn on(self, is_https: bool) -> &'static str {
        if is_https { self.of_host } else { self.plain }
    }

    /// Returns the cookie's value in a request, or `None` if it is missing or empty.
    #[must_use]
    pub fn value(self, request: &HttpRequest) -> Option<String> {
        let is_https = request
            .app_data::<Data<AppState>>()
            .is_some_and(|state| state.is_https);
        let cookie = request.cookie(self.on(is_https))?;
        Some(cookie.value().to_owned()).filter(|value| !value.is_empty())
    }
}

/// The fields of a form.
#[derive(Debug)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Returns a field's value, or an empty text if the form has no such field.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }
}

/// A form that a page showed in a session.
#[derive(Debug)]
pub struct SessionForm {
    /// The session's secret. The handler must check that the session is still valid.
    pub session: String,
    /// The form's fields.
    pub fields: Fields,
}

/// A form that a page showed to a visitor who is not signed in.
#[derive(Debug)]
pub struct VisitorForm {
    /// The visitor's secret.
    pub visitor: String,
    /// The form's fields.
    pub fields: Fields,
}

impl FromRequest for SessionForm {
    type Error = PageError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, PageError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let posted = posted(request, payload, session::COOKIE);
        Box::pin(async { posted.await.map(|(session, fields)| Self { session, fields }) })
    }
}

impl FromRequest for VisitorForm {
    type Error = PageError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, PageError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let posted = posted(request, payload, VISITOR_COOKIE);
        Box::pin(async { posted.await.map(|(visitor, fields)| Self { visitor, fields }) })
    }
}

/// Reads a form and checks its token against the secret in a cookie.
fn posted(
    request: &HttpRequest,
    payload: &mut Payload,
    cookie: CookieName,
) -> impl Future<Output = Result<(String, Fields), PageError>> + 'static {
    let request = request.clone();
    let form = Form::<Vec<(String, String)>>::from_request(&request, payload);
    async move {
        if comes_from_elsewhere(&request) {
            return Err(PageError::FormExpired);
        }
        let fields = Fields(form.await.map_err(|_| PageError::FormUnreadable)?.into_inner());
        match cookie.value(&request) {
            Some(secret) if same(&token(&secret), fields.get(TOKEN_FIELD)) => Ok((secret, fields)),
            _ => Err(PageError::FormExpired),
        }
    }
}

/// Returns the token for the forms of the holder of a secret. The token does not reveal the secret.
#[must_use]
pub fn token(secret: &str) -> String {
    let mut text = String::with_capacity(64);
    // The prefix makes this hash differ from the session's hash in the database.
    for byte in secret::digest(&format!("form token of {secret}")) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns the visitor's secret from a request, or a new one.
#[must_use]
pub fn visitor(request: &HttpRequest) -> String {
    let plausible = |secret: &String| {
        secret.len() == VISITOR_CHARS && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    VISITOR_COOKIE
        .value(request)
        .filter(plausible)
        .unwrap_or_else(|| secret::random_text(VISITOR_CHARS))
}

/// Makes the cookie with a visitor's secret. It serves only the sign-in form, and the browser deletes it when it closes.
#[must_use]
pub fn visitor_cookie(visitor: String, is_https: bool) -> Cookie<'static> {
    Cookie::build(VISITOR_COOKIE.on(is_https), visitor)
        // The prefix `__Host-` demands this path.
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(is_https)
        .finish()
}

/// Compares in constant time, so that the time does not reveal how much of the text is correct.
fn same(one: &str, other: &str) -> bool {
    let difference = one
        .bytes()
        .zip(other.bytes())
        .fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    one.len() == other.len() && black_box(difference) == 0
}

/// Returns true if the browser says that another site sent this request. If a client does not say (an old browser, curl), only the token decides.
fn comes_from_elsewhere(request: &HttpRequest) -> bool {
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or("unreadable"))
    };
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN.as_str()) else {
        return false;
    };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let ours = request
        .app_data::<Data<AppState>>()
        .map(|state| state.services.site().url.as_str());
    // A proxy may not forward the Host header. Then compare with the site's own address.
    let is_site = ours.is_some_and(|url| {
        url.strip_prefix(origin)
            .is_some_and(|path| path.is_empty() || path.starts_with('/'))
    });
    let is_host = authority.is_some() && authority == text(header::HOST.as_str());
    !(is_site || is_host)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn tokens_differ_by_secret_and_reveal_nothing_of_what_is_stored() {
        let secret = "3rfs9X2cWmMHsVnT6Tg6PCf5fdgvxgAZV3GTtdZcxXx";
        assert_eq!(token(secret).len(), 64);
        assert_eq!(token(secret), token(secret));
        assert_ne!(token(secret), token("another"));
        let stored: String = secret::digest(secret)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_ne!(token(secret), stored);
    }

    #[test]
    fn only_equal_texts_are_the_same() {
        assert!(same("abc", "abc"));
        for other in ["", "ab", "abcd", "abd", "Abc"] {
            assert!(!same("abc", other) && !same(other, "abc"), "{other}");
        }
    }

    #[test]
    fn what_the_browser_says_of_the_sender_is_believed_when_it_objects() {
        for (headers, refused) in [
            (vec![], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://deadbeat.example.org"),
                ],
                true,
            ),
            (vec![("origin", "https://deadbeat.example.org")], false),
            (vec![("origin", "https://deadbeat.example.org.evil.test")], true),
            (vec![("origin", "https://evil.test")], true),
            (vec![("origin", "null")], true),
            (vec![("origin", "")], true),
        ] {
            let mut request = TestRequest::post()
                .uri("/sign-in")
                .insert_header(("host", "deadbeat.example.org"));
            for header in &headers {
                request = request.insert_header(*header);
            }
            assert_eq!(
                comes_from_elsewhere(&request.to_http_request()),
                refused,
                "{headers:?}"
            );
        }
    }

    async fn visitor_form(cookie: Option<&str>, body: String) -> Result<VisitorForm, PageError> {
        let mut request = TestRequest::post()
            .uri("/sign-in")
            .insert_header((header::CONTENT_TYPE, "application/x-www-form-urlencoded"))
            .set_payload(body);
        if let Some(cookie) = cookie {
            request = request.insert_header((header::COOKIE, format!("{}={cookie}", VISITOR_COOKIE.plain)));
        }
        let (request, mut payload) = request.to_http_parts();
        VisitorForm::from_request(&request, &mut payload).await
    }

    #[actix_web::test]
    async fn a_form_is_taken_with_the_token_of_its_cookie_and_refused_otherwise() {
        let right = token("secret");
        let taken = visitor_form(
            Some("secret"),
            format!("form_token={right}&email=ada%40example.org"),
        )
        .await
        .unwrap();
        assert_eq!(taken.fields.get("email"), "ada@example.org");
        assert_eq!(taken.fields.get("password"), "");
        assert_eq!(taken.visitor, "secret");

        for (cookie, body) in [
            (Some("secret"), "email=ada".to_owned()),
            (Some("secret"), "form_token=".to_owned()),
            (Some("secret"), format!("form_token={}", token("another"))),
            (Some("secret"), format!("form_token={}", &right[..63])),
            (Some("another"), format!("form_token={right}")),
            (Some(""), format!("form_token={}", token(""))),
            (None, format!("form_token={right}")),
            (None, format!("form_token={}", token(""))),
        ] {
            let refused = visitor_form(cookie, body.clone()).await.unwrap_err();
            assert!(matches!(refused, PageError::FormExpired), "{cookie:?} {body}");
        }
    }

    #[actix_web::test]
    async fn what_is_no_form_is_unreadable() {
        let token = token("secret");
        let long = visitor_form(
            Some("secret"),
            format!("form_token={token}&email={}", "x".repeat(100_000)),
        )
        .await;
        assert!(matches!(long.unwrap_err(), PageError::FormUnreadable));

        let json = TestRequest::post()
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .insert_header((header::COOKIE, format!("{}=secret", VISITOR_COOKIE.plain)))
            .set_payload(format!("form_token={token}"));
        let (request, mut payload) = json.to_http_parts();
        let refused = VisitorForm::from_request(&request, &mut payload)
            .await
            .unwrap_err();
        assert!(matches!(refused, PageError::FormUnreadable));
    }
}
