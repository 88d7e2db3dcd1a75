//! Shifts as an iCalendar feed (RFC 5545).

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::rotation::Shift;
use deadbeat_store::alert::rotation::StoredRotation;

/// The most octets of a line, without the line break (RFC 5545, 3.1).
const LINE_OCTETS: usize = 75;

/// Writes a calendar with an event for each shift. An event keeps its UID while the start of its shift stays the same. A program that polls the feed
/// then changes its event instead of adding another one.
pub fn write<'a>(stored: &StoredRotation, shifts: impl Iterator<Item = Shift<'a>>) -> String {
    let name = escaped(&stored.rotation.settings().name);
    let stamp = time(stored.updated_at);
    let mut text = String::new();
    for part in [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Deadbeat//On call//EN",
        "CALSCALE:GREGORIAN",
    ] {
        line(&mut text, part);
    }
    line(&mut text, &format!("X-WR-CALNAME:{name}"));
    for shift in shifts {
        let person = escaped(&shift.person.name);
        line(&mut text, "BEGIN:VEVENT");
        let begin = shift.starts_at.timestamp();
        line(&mut text, &format!("UID:{}-{begin}@deadbeat", stored.id));
        line(&mut text, &format!("DTSTAMP:{stamp}"));
        line(&mut text, &format!("DTSTART:{}", time(shift.starts_at)));
        line(&mut text, &format!("DTEND:{}", time(shift.ends_at)));
        line(&mut text, &format!("SUMMARY:{person} (on call\\, {name})"));
        // On-call shifts do not block time in the person's calendar.
        line(&mut text, "TRANSP:TRANSPARENT");
        line(&mut text, "END:VEVENT");
    }
    line(&mut text, "END:VCALENDAR");
    text
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

/// Escapes a text (RFC 5545, 3.3.11). Names contain no line breaks.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(';', "\\;").replace(',', "\\,")
}

/// Adds a line. Folds it so that no line has more than 75 octets and no character is split.
fn line(text: &mut String, content: &str) {
    let mut octets = 0;
    for character in content.chars() {
        if octets + character.len_utf8() > LINE_OCTETS {
            text.push_str("\r\n ");
            octets = 1;
        }
        text.push(character);
        octets += character.len_utf8();
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use deadbeat_domain::alert::rotation::Rotation;
    use deadbeat_domain::ids::{ProjectId, RotationId};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn stored(name: &str, person: &str) -> StoredRotation {
        let settings = json!({
            "name": name,
            "timezone": "Europe/Berlin",
            "people": [{"name": person, "channels": [Uuid::nil()]}],
            "layers": [{"people": [person], "handover": "weekly", "at": "09:00", "starts_on": "2026-03-23"}],
        });
        StoredRotation {
            id: RotationId(Uuid::nil()),
            project_id: ProjectId(Uuid::nil()),
            rotation: Rotation::read(serde_json::from_value(settings).unwrap()).unwrap(),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn written(stored: &StoredRotation) -> String {
        let at = |text: &str| text.parse().unwrap();
        write(
            stored,
            stored
                .rotation
                .shifts(at("2026-03-24T00:00:00Z"), at("2026-03-31T00:00:00Z")),
        )
    }

    #[test]
    fn each_shift_is_an_event_in_utc() {
        let text = written(&stored("Primary", "Ann"));

        let event = "BEGIN:VEVENT\r\nUID:00000000-0000-0000-0000-000000000000-1774252800@deadbeat\r\nDTSTAMP:19700101T000000Z\r\n\
            DTSTART:20260323T080000Z\r\nDTEND:20260330T070000Z\r\nSUMMARY:Ann (on call\\, Primary)\r\nTRANSP:TRANSPARENT\r\nEND:VEVENT\r\n";
        assert!(text.contains(event), "{text}");
        assert_eq!(text.matches("BEGIN:VEVENT").count(), 2);
        assert!(
            text.starts_with("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:")
                && text.ends_with("END:VCALENDAR\r\n")
        );
    }

    #[test]
    fn names_can_add_no_line_and_long_lines_are_folded() {
        let name = format!("a;b,c\\d {}", "ü".repeat(90));
        let text = written(&stored(&name, "Ann; DTEND:x"));

        assert!(
            text.split("\r\n")
                .all(|line| line.len() <= LINE_OCTETS && !line.contains('\n'))
        );
        let unfolded = text.replace("\r\n ", "");
        assert!(
            unfolded.contains(&format!("X-WR-CALNAME:a\\;b\\,c\\\\d {}\r\n", "ü".repeat(90))),
            "{unfolded}"
        );
        assert!(
            unfolded.contains("SUMMARY:Ann\\; DTEND:x (on call\\, a\\;b"),
            "{unfolded}"
        );
    }
}
