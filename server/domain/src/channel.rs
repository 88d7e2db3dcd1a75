//! Channels: kinds and their typed settings.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::monitor::{FieldError, clip};

/// A channel's kind with what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Settings {
    /// HTTP POST of JSON.
    Webhook(WebhookSettings),
    /// Mail.
    Email(EmailSettings),
}

/// Where a webhook goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// http or https, at most 2,000 characters.
    pub url: String,
}

/// Where a mail goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// One address.
    pub to: String,
}

/// The kinds there are.
pub const KINDS: [&str; 2] = ["webhook", "email"];

impl Settings {
    /// The kind's name in SQL and JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
        }
    }

    /// Reads and checks the settings of a kind.
    ///
    /// # Errors
    /// Every fault, each with a pointer into the request.
    pub fn parse(kind: &str, settings: &Value) -> Result<Self, Vec<FieldError>> {
        let fault = |error: serde_json::Error| vec![FieldError::new("/settings", error.to_string())];
        match kind {
            "webhook" => {
                let settings: WebhookSettings = serde_json::from_value(settings.clone()).map_err(fault)?;
                let url = &settings.url;
                let has_scheme = url.starts_with("http://") || url.starts_with("https://");
                if !has_scheme
                    || url.len() > 2_000
                    || url.chars().any(|c| c.is_whitespace() || c.is_control())
                {
                    return Err(vec![FieldError::new(
                        "/settings/url",
                        format!(
                            "is {:?}; an http:// or https:// address of at most 2000 characters is allowed",
                            clip(url)
                        ),
                    )]);
                }
                Ok(Self::Webhook(settings))
            }
            "email" => {
                let settings: EmailSettings = serde_json::from_value(settings.clone()).map_err(fault)?;
                if !is_email(&settings.to) {
                    return Err(vec![FieldError::new(
                        "/settings/to",
                        format!(
                            "is {:?}; one mail address such as ops@example.org is allowed",
                            clip(&settings.to)
                        ),
                    )]);
                }
                Ok(Self::Email(settings))
            }
            other => Err(vec![FieldError::new(
                "/kind",
                format!("is {:?}; one of {} is allowed", clip(other), KINDS.join(", ")),
            )]),
        }
    }

    /// As stored and shown.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// Whether a text looks like one mail address: enough to catch slips; whether it exists only a mail tells.
#[must_use]
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    !local.is_empty()
        && !domain.is_empty()
        && text.len() <= 254
        && !text.chars().any(|c| {
            c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | ';' | '"' | '@') && c != '@'
        })
        && !local.contains('@')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
}
