//! A change of a channel's settings keeps the secrets that it leaves out, or repeats as their masks.

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::sealed::{self, HIDDEN};
use deadbeat_domain::monitor::FieldError;
use serde_json::{Map, Value};

use crate::ServiceError;
use crate::alert::delivery::senders::Kind;
use crate::alert::sealing::{Opened, Unopened};

/// Refuses masks where a secret is needed: somebody copied them from an answer.
pub(super) fn whole(
    kind: &dyn Kind,
    values: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<FieldError>> {
    let masks: Vec<FieldError> = kind
        .secrets()
        .iter()
        .filter(|field| values.get(**field).is_some_and(sealed::is_masked))
        .map(|field| {
            FieldError::new(
                format!("/settings/{field}"),
                format!("holds {HIDDEN}, which stands for hidden characters; enter the whole value"),
            )
        })
        .collect();
    if masks.is_empty() { Ok(values) } else { Err(masks) }
}

/// Puts stored secrets back into changed settings, where the change leaves them out or repeats their masks.
pub(super) fn with_kept_secrets(
    kind: &dyn Kind,
    stored: &Settings,
    opened: &Result<Opened, Unopened>,
    mut values: Map<String, Value>,
) -> Result<Map<String, Value>, ServiceError> {
    let mut kept = None;
    for field in kind.secrets() {
        let Some(value) = stored.get(field) else {
            continue;
        };
        let mask = sealed::mask_of(value).map_or_else(|| sealed::mask(value), Value::clone);
        if mask.as_object().is_some_and(Map::is_empty) {
            continue;
        }
        let is_other = values.get(*field).is_some_and(|given| *given != mask);
        if is_other && !repeats_some(values.get(*field), &mask) {
            continue;
        }
        match opened {
            Ok(opened) if is_other => {
                let stored = opened.settings.get(field);
                keep_repeated(values.get_mut(*field), &mask, stored);
                kept = Some(field);
            }
            Ok(opened) => {
                values.insert(
                    (*field).to_owned(),
                    opened.settings.get(field).cloned().unwrap_or_default(),
                );
                kept = Some(field);
            }
            Err(fault) => {
                return Err(ServiceError::Conflict(format!(
                    "the channel {fault}; enter settings.{field} again"
                )));
            }
        }
    }
    // Members who may change a channel may not read its secrets. So they must not be able to send the secrets to
    // another receiver.
    if let (Some(field), Ok(opened)) = (kept, opened) {
        let settings = Settings::new(kind.name(), values.clone());
        let destination = kind.destination(&settings);
        if destination.is_some() && destination != kind.destination(&opened.settings) {
            let what = if kind.host(&settings) == kind.host(&opened.settings) {
                "address"
            } else {
                "host"
            };
            return Err(ServiceError::Invalid(vec![FieldError::new(
                format!("/settings/{field}"),
                format!("was given for another {what}; enter it again"),
            )]));
        }
    }
    Ok(values)
}

/// True if an object repeats one of the masks of an object, so that the change keeps that value.
fn repeats_some(given: Option<&Value>, mask: &Value) -> bool {
    let (Some(given), Some(masks)) = (given.and_then(Value::as_object), mask.as_object()) else {
        return false;
    };
    given.iter().any(|(name, value)| masks.get(name) == Some(value))
}

/// Puts stored values back where an object repeats their masks.
fn keep_repeated(given: Option<&mut Value>, mask: &Value, stored: Option<&Value>) {
    for (name, value) in given.and_then(Value::as_object_mut).into_iter().flatten() {
        let is_kept = mask.get(name) == Some(value);
        if let Some(stored) = stored.and_then(|stored| stored.get(name)).filter(|_| is_kept) {
            *value = stored.clone();
        }
    }
}
