//! How values are written in JSON: the same in the API, in webhooks and on the command line.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;
use serde_json::{Value, json};

/// Writes an instant: RFC 3339, UTC, with `Z`.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Writes seconds: as an integer if they are whole.
#[must_use]
pub fn seconds(value: f64) -> Value {
    match whole(value) {
        Some(whole) => json!(whole),
        None => json!(value),
    }
}

/// Like [`seconds`], for a field of a type that derives `Serialize`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_seconds<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match whole(*value) {
        Some(whole) => serializer.serialize_i64(whole),
        None => serializer.serialize_f64(*value),
    }
}

fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_where_they_can_be() {
        for (value, written) in [(0.0, "0"), (900.0, "900"), (0.5, "0.5"), (1e16, "1e+16")] {
            assert_eq!(seconds(value).to_string(), written);
        }
    }

    #[test]
    fn instants_end_in_z() {
        let at = |text: &str| text.parse().unwrap();

        assert_eq!(instant(at("2026-03-01T02:00:00+01:00")), "2026-03-01T01:00:00Z");
        assert_eq!(instant(at("2026-03-01T02:00:00.25Z")), "2026-03-01T02:00:00.250Z");
    }
}
