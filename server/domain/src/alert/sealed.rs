//! The stored form of a channel's secrets: ciphertexts, and masks that people may see.
//!
//! Encryption is in `secret` and `alert/sealing` of the services.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ids::{ChannelId, ProjectId};

/// The only field of the object that replaces a sealed secret in the settings. Servers before 0.2 expect a text there,
/// so they cannot mistake a mask for an address. They leave the channel's alerts to newer servers.
pub const SHOWN: &str = "shown";
/// Stands for the hidden part of a secret.
pub const HIDDEN: char = '…';
/// A mask shows the last characters of a secret only if the secret has at least so many characters.
const LONG: usize = 12;
const LAST: usize = 4;

/// The sealed secrets of one channel: column `channel.sealed`. One key seals all of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The id of the key. None: the channel has no secret.
    pub key: Option<String>,
    /// Ciphertexts by [`Field::name`].
    pub values: BTreeMap<String, String>,
}

/// Ciphertexts are of no use in logs.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A secret of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// A field of the settings that the kind declares secret.
    Setting(&'a str),
    /// Signs what the channel sends.
    SigningSecret,
    /// Signs the link of a confirmation mail.
    ConfirmSecret,
}

impl<'a> Field<'a> {
    /// As stored.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Setting(field) => format!("settings.{field}"),
            Self::SigningSecret => "signing_secret".to_owned(),
            Self::ConfirmSecret => "confirm_secret".to_owned(),
        }
    }

    /// Reads [`Field::name`] back. None: a later version may have written it.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        match name {
            "signing_secret" => Some(Self::SigningSecret),
            "confirm_secret" => Some(Self::ConfirmSecret),
            _ => name.strip_prefix("settings.").map(Self::Setting),
        }
    }

    /// The text to which the ciphertext is bound. The ciphertext opens only in this field of this channel of this
    /// project.
    #[must_use]
    pub fn bound_to(self, project: ProjectId, channel: ChannelId) -> String {
        // The ids have a fixed length, so no two places have the same text.
        format!("deadbeat channel {project} {channel} {}", self.name())
    }
}

/// The object that replaces a sealed secret in the settings.
#[must_use]
pub fn placeholder(secret: &Value) -> Value {
    json!({SHOWN: mask(secret)})
}

/// Returns the mask, if the value is a placeholder of [`placeholder`]. No secret that is an object has [`SHOWN`] as its only field: the
/// check of such a setting refuses that name.
#[must_use]
pub fn mask_of(value: &Value) -> Option<&Value> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields
        .get(SHOWN)
        .filter(|mask| mask.is_string() || mask.is_object())
}

/// The part of a secret that people may see: its last four characters. Of an address also its scheme and host. Of a
/// short secret nothing. Of an object, its names with the masks of its values.
#[must_use]
pub fn mask(secret: &Value) -> Value {
    match secret {
        Value::String(text) => Value::from(match address(text) {
            Some((scheme, host, rest)) => format!("{scheme}://{host}/{}", last(rest)),
            None => last(text),
        }),
        Value::Object(secrets) => {
            let masks = secrets.iter().map(|(name, secret)| match secret.as_str() {
                Some(text) => (name.clone(), Value::from(last(text))),
                None => (name.clone(), Value::from(HIDDEN.to_string())),
            });
            Value::Object(masks.collect())
        }
        _ => Value::from(HIDDEN.to_string()),
    }
}

/// True if a value holds [`HIDDEN`]: somebody copied it from an answer.
#[must_use]
pub fn is_masked(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(HIDDEN),
        Value::Object(values) => values.values().any(is_masked),
        _ => false,
    }
}

fn last(text: &str) -> String {
    let count = text.chars().count();
    if count < LONG {
        return HIDDEN.to_string();
    }
    let end: String = text.chars().skip(count - LAST).collect();
    if end.chars().all(|c| c.is_ascii_graphic()) {
        format!("{HIDDEN}{end}")
    } else {
        HIDDEN.to_string()
    }
}

/// Returns the scheme, the host with its port, and the rest. All three leave out a user and password before the host.
/// None: the text is no web address.
fn address(text: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    // Web URLs may have `\` for `/`.
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_host = !host.is_empty() && host.chars().all(|c| !c.is_whitespace() && !c.is_control());
    is_host.then(|| (scheme, host, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_shows_the_host_and_the_last_four_of_long_secrets() {
        for (secret, shown) in [
            (
                "https://hooks.example.org/services/T0/B0/secretXy9z",
                "https://hooks.example.org/…Xy9z",
            ),
            (
                "https://hooks.example.org:8443/h?token=abcdefghijkl#x",
                "https://hooks.example.org:8443/…kl#x",
            ),
            (
                "http://user:hunter2@example.org/services/T0/B0/XXXX",
                "http://example.org/…XXXX",
            ),
            (
                "http://a@b:c@example.org/services/T0/B0/XXXX",
                "http://example.org/…XXXX",
            ),
            (
                "https://example.org\\services/T0/B0/XXXX",
                "https://example.org/…XXXX",
            ),
            (
                "https://example.org?token=abcdefghijkl",
                "https://example.org/…ijkl",
            ),
            ("https://example.org/hook", "https://example.org/…"),
            ("https://example.org/", "https://example.org/…"),
            ("https://example.org", "https://example.org/…"),
            ("https://user:hunter2@", "…er2@"),
            ("https:///hidden/in/the/path", "…path"),
            ("ftp://user:hunter2@example.org/file", "…file"),
            ("xoxb-1234567890-abcd", "…abcd"),
            ("elevenchars", "…"),
            ("twelve-chars", "…hars"),
            ("a secret with an ümlä", "…"),
            ("", "…"),
        ] {
            assert_eq!(mask(&json!(secret)), shown, "{secret}");
        }
        for other in [
            json!(123_456_789_012_345_u64),
            json!(null),
            json!(["abcdefghijklm"]),
        ] {
            assert_eq!(mask(&other), "…");
        }
    }

    #[test]
    fn a_mask_of_an_object_shows_its_names() {
        let secret = json!({"Authorization": "Bearer abcdefghijkl", "X-Team": "shop", "X-Odd": {"a": "b"}});

        let mask = mask(&secret);

        assert_eq!(
            mask,
            json!({"Authorization": "…ijkl", "X-Team": "…", "X-Odd": "…"})
        );
        assert_eq!(mask_of(&placeholder(&secret)), Some(&mask));
        assert!(is_masked(&mask) && !is_masked(&secret));
    }

    #[test]
    fn a_placeholder_is_no_text_and_shows_its_mask() {
        let placeholder = placeholder(&json!("xoxb-1234567890-abcd"));

        assert!(!placeholder.is_string());
        assert_eq!(mask_of(&placeholder), Some(&json!("…abcd")));
        for other in [
            json!("…abcd"),
            json!({}),
            json!({"shown": 1}),
            json!({"shown": ["a"]}),
            json!({"shown": "a", "more": "b"}),
        ] {
            assert_eq!(mask_of(&other), None, "{other}");
        }
    }

    #[test]
    fn no_two_places_bind_to_the_same_text() {
        let (project, other) = (ProjectId::generate(), ProjectId::generate());
        let (channel, another) = (ChannelId::generate(), ChannelId::generate());
        let fields = [
            Field::Setting("url"),
            Field::Setting("signing_secret"),
            Field::SigningSecret,
            Field::ConfirmSecret,
        ];

        let mut all = Vec::new();
        for project in [project, other] {
            for channel in [channel, another] {
                all.extend(fields.map(|field| field.bound_to(project, channel)));
            }
        }

        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        for field in fields {
            assert_eq!(Field::parse(&field.name()), Some(field));
        }
    }
}
