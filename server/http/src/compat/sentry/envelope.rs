//! The framing of an envelope: a line with headers, then items, each a line with its header and a payload.

use deadbeat_domain::limits;
use serde_json::{Map, Value};

/// The most items of an envelope that the server reads. Clients send a few.
const ITEMS: usize = 1_000;

/// The parts of an envelope that matter here. Every other item is skipped.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Envelope {
    /// The id in the headers, which the answer repeats.
    pub(super) event_id: Option<String>,
    /// The DSN in the headers: a client without another way sends its key here.
    pub(super) dsn: Option<String>,
    /// The payloads of check-ins, in their order.
    pub(super) check_ins: Vec<Map<String, Value>>,
    /// How many check-ins the client says that it lost.
    pub(super) lost: u64,
}

/// The headers of an envelope are not a JSON object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Parses an envelope. The items before a fault count: a client never sends them again.
pub(super) fn parse(bytes: &[u8]) -> Result<Envelope, Malformed> {
    let (line, mut rest) = split_line(bytes);
    let headers = object(line).ok_or(Malformed)?;
    let text = |name: &str| headers.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut envelope = Envelope {
        event_id: text("event_id"),
        dsn: text("dsn"),
        ..Envelope::default()
    };
    for _ in 0..ITEMS {
        while let Some(after) = rest.strip_prefix(b"\n").or(rest.strip_prefix(b"\r\n")) {
            rest = after;
        }
        if rest.is_empty() {
            break;
        }
        let (line, after) = split_line(rest);
        let Some(header) = object(line) else { break };
        let payload;
        (payload, rest) = match header.get("length").and_then(Value::as_u64) {
            // An item that breaks off is not whole, so it does not count.
            Some(length) => match usize::try_from(length)
                .ok()
                .and_then(|length| after.split_at_checked(length))
            {
                Some(parts) => parts,
                None => break,
            },
            None => split_line(after),
        };
        match header.get("type").and_then(Value::as_str) {
            Some("check_in") if envelope.check_ins.len() < limits::ENVELOPE_CHECK_INS => {
                envelope.check_ins.extend(object(payload));
            }
            Some("client_report") => {
                let lost = object(payload).map_or(0, |report| lost_check_ins(&report));
                envelope.lost = envelope.lost.saturating_add(lost);
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// Splits at the first newline, which belongs to neither part.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(bytes).ok()
}

/// Returns how many check-ins a client report says were lost. Sentry calls their category `monitor`.
fn lost_check_ins(report: &Map<String, Value>) -> u64 {
    let discarded = report.get("discarded_events").and_then(Value::as_array);
    discarded
        .into_iter()
        .flatten()
        .filter(|row| row.get("category").and_then(Value::as_str) == Some("monitor"))
        .filter_map(|row| row.get("quantity").and_then(Value::as_u64))
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn slugs(text: &str) -> Vec<String> {
        let envelope = parse(text.as_bytes()).unwrap();
        let slug = |item: &Map<String, Value>| item["monitor_slug"].as_str().unwrap().to_owned();
        envelope.check_ins.iter().map(slug).collect()
    }

    #[test]
    fn check_ins_are_found_with_and_without_lengths_among_other_items() {
        let payload = r#"{"monitor_slug":"a"}"#;
        let length = payload.len();
        for text in [
            format!("{{}}\n{{\"type\":\"check_in\",\"length\":{length}}}\n{payload}\n"),
            // sentry-cli sends no newline at the end; Node sends no length.
            format!("{{}}\n{{\"type\":\"check_in\",\"length\":{length}}}\n{payload}"),
            format!("{{}}\n{{\"type\":\"check_in\"}}\n{payload}"),
            format!("{{}}\n\n{{\"type\":\"check_in\",\"length\":null}}\n{payload}\n\n\n"),
            format!("{{}}\r\n{{\"type\":\"check_in\"}}\r\n{payload}\r\n"),
            format!(
                "{{}}\n{{\"type\":\"attachment\",\"length\":5}}\n{{\n\n}}\n\n{{\"type\":\"check_in\"}}\n{payload}\n"
            ),
            format!("{{}}\n{{\"type\":\"event\"}}\n{{}}\n{{\"type\":\"check_in\"}}\n{payload}\n"),
            // The item that breaks off is ignored, and so is what cannot be read.
            format!(
                "{{}}\n{{\"type\":\"check_in\"}}\n{payload}\n{{\"type\":\"check_in\",\"length\":99}}\n{payload}"
            ),
            format!(
                "{{}}\n{{\"type\":\"check_in\"}}\n{payload}\nnonsense\n{{\"type\":\"check_in\"}}\n{payload}"
            ),
            format!("{{}}\n{{\"type\":\"check_in\"}}\n[]\n{{\"type\":\"check_in\"}}\n{payload}"),
        ] {
            assert_eq!(slugs(&text), ["a"], "{text:?}");
        }
    }

    #[test]
    fn an_envelope_is_empty_or_refused_where_it_says_nothing() {
        assert_eq!(parse(b"{}"), Ok(Envelope::default()));
        assert_eq!(parse(b"{}\n"), Ok(Envelope::default()));
        for text in ["", "\n{}", "[]", "null", "{", "no envelope\n{}"] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn lost_check_ins_are_counted_and_other_losses_are_not() {
        let report = json!({"discarded_events": [
            {"reason": "queue_overflow", "category": "monitor", "quantity": 3},
            {"reason": "network_error", "category": "monitor", "quantity": 4},
            {"reason": "network_error", "category": "error", "quantity": 50},
            {"category": "monitor", "quantity": -1},
            {"category": "monitor", "quantity": "7"},
            "nonsense",
        ]});
        let text = format!("{{}}\n{{\"type\":\"client_report\"}}\n{report}\n");
        assert_eq!(parse(text.as_bytes()).unwrap().lost, 7);
        let most = json!({"discarded_events": vec![json!({"category": "monitor", "quantity": u64::MAX}); 2]});
        let text = format!("{{}}\n{{\"type\":\"client_report\"}}\n{most}\n");
        assert_eq!(parse(text.as_bytes()).unwrap().lost, u64::MAX);
    }

    #[test]
    fn an_envelope_of_many_check_ins_is_read_up_to_the_limit() {
        let item = "{\"type\":\"check_in\"}\n{\"monitor_slug\":\"a\"}\n";
        let text = format!("{{}}\n{}", item.repeat(limits::ENVELOPE_CHECK_INS + 1));
        assert_eq!(slugs(&text).len(), limits::ENVELOPE_CHECK_INS);
        let others = "{}\n{}\n".repeat(ITEMS);
        assert!(slugs(&format!("{{}}\n{others}{item}")).is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_mixture_of_its_parts_panics_or_invents_a_check_in(parts in prop::collection::vec(prop::sample::select(vec![
            "{}", "\n", "\r\n", "{\"type\":\"check_in\"}", "{\"type\":\"check_in\",\"length\":", "0", "2", "-1", "18446744073709551615", "}",
            "{\"type\":\"client_report\"}", "{\"discarded_events\":[{\"category\":\"monitor\",\"quantity\":1}]}", "{\"type\":\"event\"}", "\u{0}", "é", "[",
        ]), 0..40)) {
            let text = parts.concat();
            let headers = text.matches("\"check_in\"").count();
            if let Ok(envelope) = parse(text.as_bytes()) {
                prop_assert!(envelope.check_ins.len() <= headers);
            }
        }

        #[test]
        fn what_a_client_frames_is_read_back(slugs in prop::collection::vec("\\PC{0,20}", 1..10), with_length: bool) {
            let mut text = "{\"event_id\":\"e\"}\n".to_owned();
            for slug in &slugs {
                let payload = json!({"monitor_slug": slug}).to_string();
                let header = if with_length {
                    json!({"type": "check_in", "length": payload.len()})
                } else {
                    json!({"type": "check_in"})
                };
                text += &format!("{header}\n{payload}\n");
            }
            prop_assert_eq!(super::tests::slugs(&text), slugs);
        }
    }
}
