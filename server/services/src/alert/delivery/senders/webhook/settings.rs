//! The settings of webhooks, and their checks.

use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::sealed::SHOWN;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::{FieldError, clip};
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::preset::Preset;

/// The media type of the standard message, and of templates without a `content_type`.
pub(super) const JSON: &str = "application/json";
const METHODS: [(&str, Method); 4] = [
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("PATCH", Method::PATCH),
    ("GET", Method::GET),
];
/// Headers that only the server may set: those of the connection (RFC 9110, 7.6.1) and of the body.
const REFUSED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-type",
];
/// The names of the signature's headers begin with this.
const OURS: &str = "webhook-";
const CONTENT_TYPE_CHARS: usize = 100;

/// The settings as stored.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    pub(super) url: String,
    method: Option<String>,
    headers: Option<Map<String, Value>>,
    content_type: Option<String>,
    preset: Option<String>,
    body: Option<String>,
    opened: Option<String>,
    resolved: Option<String>,
    path: Option<String>,
}

/// The settings that decide about the body. None of them is secret, so a change that leaves out secrets has all of them.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Texts {
    method: Option<String>,
    content_type: Option<String>,
    preset: Option<String>,
    pub(super) body: Option<String>,
    pub(super) opened: Option<String>,
    pub(super) resolved: Option<String>,
    pub(super) path: Option<String>,
}

/// The body of one kind of message.
pub(super) enum Body<'a> {
    /// The standard message, as JSON.
    Standard,
    /// A ready-made body.
    Ready(Preset),
    /// The text that a template makes.
    Template {
        /// The setting that holds the template.
        field: &'static str,
        /// The template.
        source: &'a str,
    },
    /// No body: a `GET` has none.
    None,
}

impl Form {
    pub(super) fn texts(&self) -> Texts {
        Texts {
            method: self.method.clone(),
            content_type: self.content_type.clone(),
            preset: self.preset.clone(),
            body: self.body.clone(),
            opened: self.opened.clone(),
            resolved: self.resolved.clone(),
            path: self.path.clone(),
        }
    }

    /// Returns the added headers. Leaves out those that cannot be sent; the checks refuse such headers.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let headers = self.headers.iter().flatten();
        headers.filter_map(|(name, value)| {
            let name = readable_name(name).ok()?;
            let mut value = readable_value(value).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        })
    }

    /// Returns the faults of all settings but `url`. Does not render templates.
    pub(super) fn check(&self) -> Vec<FieldError> {
        let mut faults = self.texts().check();
        let headers = self.headers.iter().flatten();
        if headers.clone().count() > limits::WEBHOOK_HEADERS {
            faults.push(FieldError::new(
                "/settings/headers",
                format!("has more than {} headers", limits::WEBHOOK_HEADERS),
            ));
            return faults;
        }
        let mut names = Vec::new();
        for (name, value) in headers {
            let at = || format!("/settings/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            match readable_name(name) {
                Ok(name) if names.contains(&name) => {
                    faults.push(FieldError::new(
                        at(),
                        "is given twice: upper and lower case are the same",
                    ));
                }
                Ok(name) => names.push(name),
                Err(fault) => faults.push(FieldError::new(at(), fault)),
            }
            if let Err(fault) = readable_value(value) {
                faults.push(FieldError::new(at(), fault));
            }
        }
        faults
    }
}

impl Texts {
    /// Reads them from settings that may be incomplete or faulty otherwise. None: a value has the wrong type.
    pub(super) fn read(settings: &Settings) -> Option<Self> {
        settings.read().ok()
    }

    /// Returns the HTTP method.
    pub(super) fn method(&self) -> Method {
        let named = |(name, _): &&(&str, Method)| Some(*name) == self.method.as_deref();
        METHODS
            .iter()
            .find(named)
            .map_or(Method::POST, |(_, method)| method.clone())
    }

    /// Returns the media type of the bodies that templates make.
    pub(super) fn content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or(JSON)
    }

    fn preset(&self) -> Option<Preset> {
        self.preset.as_deref().and_then(Preset::parse)
    }

    /// Returns the body for this kind of message. `opened` is also for reminders and escalations: the incident needs somebody.
    pub(super) fn body(&self, alert: Alert) -> Body<'_> {
        let of_alert = match alert {
            Alert::Opened | Alert::Reminder | Alert::Escalated => ("opened", &self.opened),
            Alert::Resolved => ("resolved", &self.resolved),
            _ => ("body", &self.body),
        };
        let chosen = [of_alert, ("body", &self.body)]
            .into_iter()
            .find_map(|(field, text)| Some((field, text.as_deref()?)));
        match (self.method(), self.preset(), chosen) {
            (Method::GET, ..) => Body::None,
            (_, Some(preset), _) => Body::Ready(preset),
            (_, None, Some((field, source))) => Body::Template { field, source },
            (_, None, None) => Body::Standard,
        }
    }

    /// Returns the settings that hold templates.
    pub(super) fn templates(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("body", &self.body),
            ("opened", &self.opened),
            ("resolved", &self.resolved),
            ("path", &self.path),
        ]
        .into_iter()
        .filter_map(|(field, text)| Some((field, text.as_deref()?)))
    }

    /// Returns the faults. Does not render templates.
    pub(super) fn check(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut refuse = |field: &str, message: String| {
            faults.push(FieldError::new(format!("/settings/{field}"), message))
        };
        if let Some(method) = &self.method
            && !METHODS.iter().any(|(name, _)| name == method)
        {
            let known = METHODS.map(|(name, _)| name).join(", ");
            refuse(
                "method",
                format!("is {:?}; one of {known} is allowed", clip(method)),
            );
        }
        if let Some(preset) = &self.preset
            && Preset::parse(preset).is_none()
        {
            let known = Preset::ALL.map(Preset::as_str).join(", ");
            refuse(
                "preset",
                format!("is {:?}; one of {known} is allowed", clip(preset)),
            );
        }
        let bodies = [&self.body, &self.opened, &self.resolved];
        let has_bodies = bodies.iter().any(|body| body.is_some());
        if self.method() == Method::GET && (has_bodies || self.preset.is_some()) {
            refuse(
                "method",
                "is GET, which has no body; preset, body, opened and resolved are for the other methods"
                    .to_owned(),
            );
        }
        if self.preset.is_some() && (has_bodies || self.content_type.is_some()) {
            refuse(
                "preset",
                "stands beside body, opened, resolved or content_type; a preset sets all of them".to_owned(),
            );
        }
        if let Some(content_type) = &self.content_type {
            if !has_bodies {
                refuse(
                    "content_type",
                    "is the type of what body, opened or resolved make; none of them is there".to_owned(),
                );
            }
            if !is_content_type(content_type) {
                refuse(
                    "content_type",
                    format!(
                        "is {:?}; a media type of at most {CONTENT_TYPE_CHARS} characters such as text/plain; charset=utf-8 is allowed, in UTF-8",
                        clip(content_type)
                    ),
                );
            }
        }
        for (field, text) in self.templates() {
            let most = if field == "path" {
                limits::TEMPLATE_PATH_CHARS
            } else {
                limits::TEMPLATE_CHARS
            };
            let count = text.chars().count();
            if !(1..=most).contains(&count) {
                refuse(field, format!("has {count} characters; 1 to {most} are allowed"));
            } else if let Some(position) = text.chars().position(is_refused) {
                refuse(
                    field,
                    format!("has a control character at character {}", position + 1),
                );
            }
        }
        faults
    }
}

/// True for control characters but line ends and tabs.
fn is_refused(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

/// True for `type/subtype`, perhaps with parameters (RFC 9110, 8.3.1). The only charset is UTF-8, because the server sends nothing else.
fn is_content_type(text: &str) -> bool {
    let is_token = |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok();
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default().trim_end();
    let has_type = essence
        .split_once('/')
        .is_some_and(|(of, sub)| is_token(of) && is_token(sub));
    let has_parameters = parts.all(|part| match part.trim().split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        Some((name, value)) => is_token(name) && !value.is_empty() && !value.contains('"'),
        None => false,
    });
    text.len() <= CONTENT_TYPE_CHARS
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        && has_type
        && has_parameters
}

fn readable_name(name: &str) -> Result<HeaderName, String> {
    let read = HeaderName::from_bytes(name.as_bytes())
        .ok()
        .filter(|_| name.len() <= limits::WEBHOOK_HEADER_NAME_CHARS);
    let Some(read) = read else {
        return Err(format!(
            "is no name of a header; 1 to {} letters, digits and hyphens are allowed",
            limits::WEBHOOK_HEADER_NAME_CHARS
        ));
    };
    if REFUSED.contains(&read.as_str()) || read.as_str().starts_with(OURS) || read.as_str() == SHOWN {
        let instead = match read.as_str() {
            "content-type" => ": content_type sets it",
            _ => "",
        };
        return Err(format!("is a header that only the server may set{instead}"));
    }
    Ok(read)
}

/// Reads the value of a header. The fault does not repeat the value, which may be a secret.
fn readable_value(value: &Value) -> Result<HeaderValue, String> {
    let is_value = |text: &&str| {
        (1..=limits::WEBHOOK_HEADER_CHARS).contains(&text.len())
            && text.trim() == *text
            && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
    };
    value
        .as_str()
        .filter(is_value)
        .and_then(|text| HeaderValue::from_str(text).ok())
        .ok_or_else(|| {
            format!(
                "is no text of 1 to {} visible ASCII characters, with spaces only between them",
                limits::WEBHOOK_HEADER_CHARS
            )
        })
}
