//! Channels: their settings as stored, and the rules of mail addresses.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::sealed;

/// A channel's kind, and its destination. The file of the kind in `services/alert/delivery/senders` interprets the
/// settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    kind: String,
    values: Value,
}

impl Settings {
    /// Joins a kind and its settings.
    #[must_use]
    pub fn new(kind: &str, values: Map<String, Value>) -> Self {
        Self {
            kind: kind.to_owned(),
            values: Value::Object(values),
        }
    }

    /// Joins the columns of a row. None: the settings are no object.
    #[must_use]
    pub fn of_row(kind: String, values: Value) -> Option<Self> {
        values.is_object().then_some(Self { kind, values })
    }

    /// The kind's name in SQL and JSON.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Reads the settings as the kind's own type.
    ///
    /// # Errors
    /// A field is missing, unknown, or of another type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.values)
    }

    /// True if the owner of the address must agree before Deadbeat sends alerts there. Only mail reaches people who
    /// never asked for it. The table `channel` and its statements use the same name for this kind.
    #[must_use]
    pub fn needs_confirmation(&self) -> bool {
        self.kind == "email"
    }

    /// As stored.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.values.clone()
    }

    /// One field of the settings.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field)
    }

    /// The same settings with another value of one field.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        if let Value::Object(values) = &mut self.values {
            values.insert(field.to_owned(), value);
        }
        self
    }

    /// The settings with the mask in place of each sealed secret. A masked address still shows its host.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut masked = self.clone();
        if let Value::Object(values) = &mut masked.values {
            for value in values.values_mut() {
                if let Some(mask) = sealed::mask_of(value) {
                    *value = mask.clone();
                }
            }
        }
        masked
    }

    /// True if a secret is sealed. The settings then hold only its mask.
    #[must_use]
    pub fn has_masks(&self) -> bool {
        let values = self.values.as_object();
        values.is_some_and(|values| values.values().any(|value| sealed::mask_of(value).is_some()))
    }

    /// The part of the settings that people may see. `secrets` names the fields to mask. None: this version does not
    /// know the kind, so every field that is not masked already is left out.
    #[must_use]
    pub fn shown(&self, secrets: Option<&[&str]>) -> Value {
        let Value::Object(values) = &self.values else {
            return Value::Object(Map::new());
        };
        let shown = values.iter().filter_map(|(field, value)| {
            let shown = match (sealed::mask_of(value), secrets) {
                (Some(mask), _) => mask.clone(),
                (None, Some(secrets)) if secrets.contains(&field.as_str()) => sealed::mask(value),
                (None, Some(_)) => value.clone(),
                (None, None) => return None,
            };
            Some((field.clone(), shown))
        });
        Value::Object(shown.collect())
    }
}

/// Addresses are often secrets, so logs do not show them.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// True if a text looks like one mail address. It catches typing errors; only a mail shows whether the address exists.
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

/// True if mail can be sent to an address: its domain is a host name, and no program can take either part for an
/// option. Address literals such as `x@[127.0.0.1]` are refused, because they name machines, not people.
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

/// Returns the mailbox of an address, for quotas: in lower case, without the `+detail` that many servers ignore.
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
