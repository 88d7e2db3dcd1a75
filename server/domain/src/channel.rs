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

/// Whether mail can be sent to an address at all: its domain is a host name, and neither part can be taken for an option of a program.
/// Address literals such as `x@[127.0.0.1]` are refused: they name machines, not people.
#[must_use]
pub fn is_mailable(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let is_number = domain.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_email(address) && !local.starts_with('-') && !is_number && domain.split('.').all(is_label)
}

/// The mailbox behind an address, for counting: in lower case and without the `+detail` that many servers ignore.
#[must_use]
pub fn mailbox(address: &str) -> String {
    let address = address.to_lowercase();
    match address.rsplit_once('@') {
        Some((local, domain)) => {
            let user = local.split('+').next().unwrap_or(local);
            format!("{user}@{domain}")
        }
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_an_address_are_one_mailbox() {
        for address in [
            "ops@example.org",
            "OPS@Example.org",
            "ops+a@example.org",
            "ops+a+b@example.org",
        ] {
            assert_eq!(mailbox(address), "ops@example.org", "{address}");
        }
    }

    #[test]
    fn mail_goes_to_host_names_only() {
        for (address, is_good) in [
            ("ops@example.org", true),
            ("ops+night@mail.example.org", true),
            ("o'hara@example.org", true),
            ("root@mailhost", true),
            ("ops@münchen.example", true),
            ("x@[127.0.0.1]", false),
            ("x@[IPv6:::1]", false),
            ("x@127.0.0.1", false),
            ("x@-oProxy", false),
            ("-x@example.org", false),
            ("x@a..b", false),
            ("x@exa_mple.org", false),
            ("x@example.org-", false),
            ("nobody", false),
        ] {
            assert_eq!(is_mailable(address), is_good, "{address}");
        }
    }
}
