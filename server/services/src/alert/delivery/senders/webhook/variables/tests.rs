use std::collections::BTreeSet;

use deadbeat_domain::ids::DeliveryId;

use super::*;
use crate::alert::delivery::senders::webhook::template::FILTERS;
use crate::alert::example;

const PAGE: &str = include_str!("../../../../../../../../docs/channels/webhook.md");

/// Collects the names of a value and of its parts, as the page writes them.
fn names(at: &str, value: &Value, found: &mut BTreeSet<String>) {
    if !at.is_empty() {
        found.insert(at.to_owned());
    }
    match value {
        // Their fields are those of the stored message, and of the schedule's kind.
        _ if matches!(at, "message" | "monitor.schedule") => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}.{name}")
                };
                names(&at, value, found);
            }
        }
        // The page lists the fields of elements that are objects, not the elements.
        Value::Array(elements) => {
            for element in elements {
                let at = format!("{at}[]");
                names(&at, element, found);
                if element.is_object() {
                    found.remove(&at);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_page_lists_each_variable_and_no_other() {
    let table = PAGE.split("## Variables").nth(1).unwrap();
    let documented: BTreeSet<String> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .filter(|name| *name != "monitor.schedule.kind")
        .map(str::to_owned)
        .collect();

    let mut found = BTreeSet::new();
    for message in example::every_kind() {
        names("", &variables(DeliveryId::generate(), &message), &mut found);
    }

    let missing: Vec<_> = found.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&found).collect();
    assert_eq!(
        (missing, invented),
        (vec![], vec![]),
        "missing on the page, only on the page"
    );
}

#[test]
fn the_names_of_one_message_are_those_of_every_other() {
    let names_of = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    let mut messages = example::every_kind().into_iter();
    let all = |message: &Message| variables(DeliveryId::generate(), message);
    let first = all(&messages.next().unwrap());
    for message in messages {
        let other = all(&message);
        assert_eq!(names_of(&other), names_of(&first), "{}", other["type"]);
        if other["incident"].is_object() {
            assert_eq!(names_of(&other["incident"]), names_of(&first["incident"]));
            assert_eq!(
                names_of(&other["incident"]["cause"]),
                names_of(&first["incident"]["cause"])
            );
        }
    }
}

#[test]
fn the_page_lists_each_filter_and_no_other() {
    let list = PAGE.split("slices, and the filters\n").nth(1).unwrap();
    let list = list.split("**There are no**").next().unwrap();
    let documented: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();

    assert_eq!(documented, FILTERS.into_iter().collect());
}
