//! The rules of a channel: which alerts about incidents it gets, and when.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::quiet_hours::{QuietHours, unknown};
use crate::alert::Alert;
use crate::incident::SubjectKind;
use crate::incident::cause::Cause;
use crate::incident::severity::Severity;
use crate::limits;
use crate::monitor::{FieldError, check_tags, clip};

/// The longest delay: a day, in seconds.
pub const MOST_DELAY_SECONDS: u32 = 86_400;
/// Patterns that one channel may name.
const MOST_PATTERNS: usize = 50;
/// The names of the rules in JSON.
pub const FIELDS: [&str; 5] = [
    "events",
    "minimum_severity",
    "delay_seconds",
    "match",
    "quiet_hours",
];

/// The alerts that a channel can leave out.
pub const EVENTS: [Alert; 5] = [
    Alert::Opened,
    Alert::Reminder,
    Alert::Acknowledged,
    Alert::Resolved,
    Alert::Escalated,
];

/// The rules of a channel. Without rules, it gets every alert at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The alerts that the channel gets. None: all, including those of later versions.
    events: Option<Vec<Alert>>,
    minimum_severity: Severity,
    delay_seconds: u32,
    matching: Match,
    quiet_hours: Option<QuietHours>,
}

/// The incidents that a channel gets. An empty list allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Match {
    tags: Vec<String>,
    subjects: Vec<SubjectKind>,
    causes: Vec<String>,
    /// The causes that the patterns allow: bit n is the n-th of [`Cause::ALL`].
    cause_bits: u64,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            events: None,
            minimum_severity: Severity::Info,
            delay_seconds: 0,
            matching: Match::default(),
            quiet_hours: None,
        }
    }
}

/// The properties of an incident that the rules check.
#[derive(Debug, Clone, Copy)]
pub struct Traits<'a> {
    /// What kind of thing the incident is about.
    pub kind: SubjectKind,
    /// Its cause. None: a later version added the cause, so the rules about causes do not apply.
    pub cause: Option<Cause>,
    /// How urgent it is.
    pub severity: Severity,
    /// The tags of its monitor.
    pub tags: &'a [String],
}

impl Routing {
    /// True if the channel gets this kind of alert. A channel can leave out only alerts about incidents.
    #[must_use]
    pub fn takes(&self, alert: Alert) -> bool {
        let events = self.events.as_deref();
        events.is_none_or(|events| events.contains(&alert)) || !EVENTS.contains(&alert)
    }

    /// True if the channel gets alerts about such an incident. Only monitors have tags, so the rule about tags ignores
    /// incidents of other subjects.
    #[must_use]
    pub fn matches(&self, incident: &Traits<'_>) -> bool {
        let Match {
            tags,
            subjects,
            causes,
            cause_bits,
        } = &self.matching;
        incident.severity >= self.minimum_severity
            && (subjects.is_empty() || subjects.contains(&incident.kind))
            && (causes.is_empty() || incident.cause.is_none_or(|cause| cause_bits & bit(cause) != 0))
            && (tags.is_empty()
                || incident.kind != SubjectKind::Monitor
                || incident.tags.iter().any(|tag| tags.contains(tag)))
    }

    /// How long after the beginning of an incident the channel is notified.
    #[must_use]
    pub fn delay(&self) -> TimeDelta {
        TimeDelta::seconds(self.delay_seconds.into())
    }

    /// The times at which the channel gets only critical alerts.
    #[must_use]
    pub fn quiet_hours(&self) -> Option<&QuietHours> {
        self.quiet_hours.as_ref()
    }

    /// Reads the stored form. Ignores rules that this version cannot read: an alert too many is better than one too
    /// few.
    #[must_use]
    pub fn of_row(stored: Option<&Value>) -> Self {
        let mut routing = Self::default();
        let Some(Value::Object(stored)) = stored else {
            return routing;
        };
        let mut faults = Vec::new();
        for (field, value) in stored {
            let mut with = routing.clone();
            let before = faults.len();
            with.set(field, value, &mut faults);
            if faults.len() == before {
                routing = with;
            }
        }
        routing
    }

    /// Sets the given rules, and leaves the others unchanged.
    pub fn apply(&mut self, given: &Map<String, Value>, faults: &mut Vec<FieldError>) {
        for (field, value) in given {
            self.set(field, value, faults);
        }
    }

    /// Sets one rule. `null` removes it.
    fn set(&mut self, field: &str, value: &Value, faults: &mut Vec<FieldError>) {
        let pointer = format!("/{field}");
        match field {
            "events" => self.events = read_events(&pointer, value, faults),
            "minimum_severity" => {
                let found = if value.is_null() {
                    Some(Severity::Info)
                } else {
                    value.as_str().and_then(Severity::parse)
                };
                match found {
                    Some(severity) => self.minimum_severity = severity,
                    None => faults.push(FieldError::new(pointer, "must be one of info, warning, critical")),
                }
            }
            "delay_seconds" => {
                let found = if value.is_null() { Some(0) } else { value.as_u64() };
                match found.and_then(|seconds| u32::try_from(seconds).ok()) {
                    Some(seconds) if seconds <= MOST_DELAY_SECONDS => self.delay_seconds = seconds,
                    _ => faults.push(FieldError::new(
                        pointer,
                        format!("must be a whole number from 0 to {MOST_DELAY_SECONDS} (a day)"),
                    )),
                }
            }
            "match" if value.is_null() => self.matching = Match::default(),
            "match" => self.matching = Match::read(&pointer, value, faults),
            "quiet_hours" if value.is_null() => self.quiet_hours = None,
            "quiet_hours" => match QuietHours::from_json(&pointer, value) {
                Ok(hours) => self.quiet_hours = Some(hours),
                Err(found) => faults.extend(found),
            },
            _ => faults.push(FieldError::new(pointer, "is unknown")),
        }
    }

    /// The form that the API shows and the database stores.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let events = |events: &[Alert]| json!(events.iter().map(|alert| alert.as_str()).collect::<Vec<_>>());
        let subjects: Vec<&str> = self.matching.subjects.iter().map(|kind| kind.as_str()).collect();
        let values = [
            self.events.as_deref().map_or(Value::Null, events),
            json!(self.minimum_severity),
            json!(self.delay_seconds),
            json!({"tags": self.matching.tags, "subjects": subjects, "causes": self.matching.causes}),
            self.quiet_hours.as_ref().map_or(Value::Null, QuietHours::to_json),
        ];
        FIELDS.map(str::to_owned).into_iter().zip(values).collect()
    }
}

fn read_events(pointer: &str, value: &Value, faults: &mut Vec<FieldError>) -> Option<Vec<Alert>> {
    if value.is_null() {
        return None;
    }
    let names = value.as_array();
    let read = |name: &Value| {
        EVENTS
            .into_iter()
            .find(|alert| Some(alert.as_str()) == name.as_str())
    };
    let events: Option<Vec<Alert>> = names.and_then(|names| names.iter().map(read).collect());
    match events {
        Some(found) if !found.is_empty() && found.len() <= EVENTS.len() => {
            let events: Vec<Alert> = EVENTS.into_iter().filter(|alert| found.contains(alert)).collect();
            (events.len() < EVENTS.len()).then_some(events)
        }
        _ => {
            let known = EVENTS.map(Alert::as_str).join(", ");
            faults.push(FieldError::new(
                pointer,
                format!("must be a list of one or more of {known}; null means all of them"),
            ));
            None
        }
    }
}

impl Match {
    fn read(pointer: &str, value: &Value, faults: &mut Vec<FieldError>) -> Self {
        let mut read = Self::default();
        let Some(members) = value.as_object() else {
            let shape = r#"is no object; {"tags":[],"subjects":[],"causes":[]} is allowed"#;
            faults.push(FieldError::new(pointer, shape));
            return read;
        };
        unknown(pointer, members.keys(), &["tags", "subjects", "causes"], faults);
        let mut texts = |member: &str| {
            let found = members.get(member).map_or(Some(Vec::new()), |list| {
                list.as_array()?
                    .iter()
                    .map(|text| text.as_str().map(str::to_owned))
                    .collect()
            });
            found.unwrap_or_else(|| {
                faults.push(FieldError::new(
                    format!("{pointer}/{member}"),
                    "must be a list of texts",
                ));
                Vec::new()
            })
        };
        let (tags, subjects, causes) = (texts("tags"), texts("subjects"), texts("causes"));
        read.tags = tags;
        check_tags(&format!("{pointer}/tags"), &mut read.tags, faults);
        for (index, name) in subjects.iter().enumerate() {
            match SubjectKind::parse(name) {
                Some(kind) if read.subjects.contains(&kind) => {}
                Some(kind) => read.subjects.push(kind),
                None => faults.push(FieldError::new(
                    format!("{pointer}/subjects/{index}"),
                    format!(
                        "is {:?}; one of {} is allowed",
                        clip(name),
                        SubjectKind::ALL.map(SubjectKind::as_str).join(", ")
                    ),
                )),
            }
        }
        if causes.len() > MOST_PATTERNS {
            let message = format!(
                "has {} patterns; at most {MOST_PATTERNS} are allowed",
                causes.len()
            );
            faults.push(FieldError::new(format!("{pointer}/causes"), message));
            return read;
        }
        for (index, pattern) in causes.iter().enumerate() {
            let bits = matching_causes(pattern);
            if bits == 0 {
                // With a typing error in its pattern, a channel would get no alert at all.
                faults.push(FieldError::new(
                    format!("{pointer}/causes/{index}"),
                    format!("is {:?}, which matches no cause; a cause such as BEAT_DOWN, or a pattern such as QUEUE_*, is allowed", clip(pattern)),
                ));
            }
            read.cause_bits |= bits;
        }
        read.causes = causes;
        read
    }
}

fn bit(cause: Cause) -> u64 {
    1 << cause as u64
}

/// Returns the causes that a pattern allows.
fn matching_causes(pattern: &str) -> u64 {
    if pattern.len() > limits::NAME_CHARS {
        return 0;
    }
    let fits = |cause: &Cause| fits(pattern, cause.as_str());
    Cause::ALL
        .into_iter()
        .filter(fits)
        .map(bit)
        .fold(0, |all, one| all | one)
}

/// True if a text matches a pattern in which `*` stands for any characters.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(given: Value) -> Result<Routing, Vec<FieldError>> {
        let (mut read, mut faults) = (Routing::default(), Vec::new());
        read.apply(given.as_object().unwrap(), &mut faults);
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    fn traits(kind: SubjectKind, cause: Cause, tags: &[String]) -> Traits<'_> {
        Traits {
            kind,
            cause: Some(cause),
            severity: cause.severity(),
            tags,
        }
    }

    #[test]
    fn the_stored_form_is_read_back() {
        for given in [
            json!({}),
            json!({"events": ["resolved", "opened"], "minimum_severity": "critical", "delay_seconds": 600,
                "match": {"tags": ["payments"], "subjects": ["beat", "monitor"], "causes": ["QUEUE_*", "MISSED"]},
                "quiet_hours": {"timezone": "Europe/Berlin", "times": [{"days": ["sat"], "from": "22:00", "to": "07:00"}]}}),
        ] {
            let read = routing(given).unwrap();

            assert_eq!(Routing::of_row(Some(&Value::Object(read.to_json()))), read);
        }
        assert_eq!(Routing::of_row(None), Routing::default());
        let all = routing(json!({"events": ["opened", "reminder", "acknowledged", "resolved", "escalated"]}));
        assert_eq!(all.unwrap(), Routing::default());
    }

    #[test]
    fn rules_that_cannot_be_read_keep_nothing_back() {
        let stored =
            json!({"events": ["shouted"], "minimum_severity": "apocalyptic", "delay_seconds": 60, "mood": 7});

        let read = Routing::of_row(Some(&stored));

        assert_eq!(read, routing(json!({"delay_seconds": 60})).unwrap());
    }

    #[test]
    fn an_incident_passes_when_it_fits_every_rule() {
        use Cause::{BeatDown, ClockSkew, Missed, QueueSlaBreach, QueueUnconsumed};
        use SubjectKind::{Beat, Monitor, Queue, Worker};
        let tags = vec!["shop".to_owned(), "payments".to_owned()];
        for (rules, kind, cause, passes) in [
            (json!({}), Worker, ClockSkew, true),
            (json!({"minimum_severity": "warning"}), Worker, ClockSkew, false),
            (json!({"minimum_severity": "warning"}), Monitor, Missed, true),
            (json!({"minimum_severity": "critical"}), Monitor, Missed, false),
            (json!({"minimum_severity": "critical"}), Beat, BeatDown, true),
            (
                json!({"match": {"tags": ["payments", "x"]}}),
                Monitor,
                Missed,
                true,
            ),
            (json!({"match": {"tags": ["x"]}}), Monitor, Missed, false),
            // A Beat has no tags, but may schedule tasks of monitors that have them.
            (json!({"match": {"tags": ["x"]}}), Beat, BeatDown, true),
            (
                json!({"match": {"tags": ["x"], "subjects": ["monitor"]}}),
                Beat,
                BeatDown,
                false,
            ),
            (
                json!({"match": {"subjects": ["beat", "queue"]}}),
                Queue,
                QueueSlaBreach,
                true,
            ),
            (json!({"match": {"subjects": ["beat"]}}), Monitor, Missed, false),
            (
                json!({"match": {"causes": ["QUEUE_*"]}}),
                Queue,
                QueueUnconsumed,
                true,
            ),
            (json!({"match": {"causes": ["QUEUE_*"]}}), Beat, BeatDown, false),
            (json!({"match": {"causes": ["*"]}}), Beat, BeatDown, true),
            (
                json!({"match": {"causes": ["*_DOWN", "MISSED"]}}),
                Beat,
                BeatDown,
                true,
            ),
            (
                json!({"match": {"causes": ["Q*_*MED"]}}),
                Queue,
                QueueUnconsumed,
                true,
            ),
            (
                json!({"match": {"causes": ["Q*_*MED"]}}),
                Queue,
                QueueSlaBreach,
                false,
            ),
            (
                json!({"match": {"tags": [], "subjects": [], "causes": []}}),
                Beat,
                BeatDown,
                true,
            ),
        ] {
            assert_eq!(
                routing(rules.clone())
                    .unwrap()
                    .matches(&traits(kind, cause, &tags)),
                passes,
                "{rules} {cause:?}"
            );
        }
    }

    #[test]
    fn every_cause_has_a_bit_of_its_own() {
        let all = Cause::ALL.into_iter().map(bit).fold(0, |all, one| all | one);

        assert_eq!(all.count_ones() as usize, Cause::ALL.len());
        assert_eq!(matching_causes("*"), all);
    }

    #[test]
    fn bad_rules_are_refused_where_the_fault_is() {
        for (given, pointer) in [
            (json!({"events": []}), "/events"),
            (json!({"events": "opened"}), "/events"),
            (json!({"events": ["opened", "test"]}), "/events"),
            (json!({"events": ["Opened"]}), "/events"),
            (json!({"minimum_severity": "high"}), "/minimum_severity"),
            (json!({"minimum_severity": 2}), "/minimum_severity"),
            (json!({"delay_seconds": -1}), "/delay_seconds"),
            (json!({"delay_seconds": 1.5}), "/delay_seconds"),
            (json!({"delay_seconds": "60"}), "/delay_seconds"),
            (json!({"delay_seconds": 86_401}), "/delay_seconds"),
            (json!({"delay_seconds": 4_294_967_297_u64}), "/delay_seconds"),
            (json!({"match": []}), "/match"),
            (json!({"match": {"tag": ["x"]}}), "/match/tag"),
            (json!({"match": {"tags": "x"}}), "/match/tags"),
            (json!({"match": {"tags": ["a b"]}}), "/match/tags/0"),
            (json!({"match": {"tags": vec!["x"; 51]}}), "/match/tags"),
            (
                json!({"match": {"subjects": ["beat", "beats"]}}),
                "/match/subjects/1",
            ),
            (json!({"match": {"causes": ["QUEU_*"]}}), "/match/causes/0"),
            (json!({"match": {"causes": ["missed"]}}), "/match/causes/0"),
            (json!({"match": {"causes": [""]}}), "/match/causes/0"),
            (json!({"match": {"causes": vec!["*"; 51]}}), "/match/causes"),
            (
                json!({"match": {"causes": ["*".repeat(1_000)]}}),
                "/match/causes/0",
            ),
            (json!({"quiet_hours": {"timezone": "X"}}), "/quiet_hours/timezone"),
        ] {
            let faults = routing(given.clone()).unwrap_err();

            assert_eq!(faults[0].pointer, pointer, "{given}: {faults:?}");
        }
    }
}
