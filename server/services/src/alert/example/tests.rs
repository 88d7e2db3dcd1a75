use std::collections::BTreeSet;

use deadbeat_domain::incident::SubjectKind;

use super::*;
use crate::alert::delivery::story::Story;

#[test]
fn each_cause_has_an_incident_that_says_what_happened_and_what_to_do() {
    let mut kinds = BTreeSet::new();
    let mut summaries = BTreeSet::new();
    for cause in Cause::ALL {
        let message = of(Alert::Opened, cause);
        let incident = message.incident().unwrap();
        assert_eq!(incident.cause.code, cause.as_str());
        assert_eq!(incident.severity(), cause.severity());
        assert!(
            !incident.evidence.is_empty() && !incident.repair.is_empty(),
            "{cause:?}"
        );
        assert!(
            cause == Cause::Unknown || summaries.insert(incident.cause.summary.clone()),
            "{cause:?} says the same as another one"
        );
        kinds.insert(incident.subject.kind.as_str());
        // These words replace unknown values. An example knows all of its values.
        let text = message.to_json().to_string();
        for unknown in ["A worker", "unnamed", "its queue", " ? "] {
            assert!(!text.contains(unknown), "{cause:?}: {unknown}: {text}");
        }
    }
    assert_eq!(
        kinds,
        SubjectKind::ALL.map(SubjectKind::as_str).into_iter().collect()
    );
}

#[test]
fn every_kind_of_message_has_its_example_and_is_stored_as_it_is() {
    let all = every_kind();
    let alerts: BTreeSet<&str> = all.iter().map(|message| message.alert().event_type()).collect();
    let sent = Alert::ALL
        .into_iter()
        .filter(|alert| *alert != Alert::Confirmation);
    assert_eq!(alerts, sent.map(Alert::event_type).collect());
    for alert in Alert::ALL {
        assert_eq!(of(alert, Cause::Missed).alert(), alert);
    }
    for message in all {
        assert_eq!(Message::read(message.to_json(), message.at), message);
        assert!(!Story::of(&message).headline.is_empty());
    }
}
