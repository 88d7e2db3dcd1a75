//! Each kind of channel has its schemas in the contract and its page in docs/channels. The compiler ensures that each kind has its conformance
//! test: `Kind::conforms`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_services::alert::delivery::senders::KINDS;
use serde_json::{Value, json};

use super::document::contract;

const SCHEMAS: &str = "/components/schemas";

fn pages() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/channels"))
}

/// Returns the first JSON block of a page.
fn example(page: &str) -> Value {
    let block = page
        .split("```json\n")
        .nth(1)
        .expect("the page shows how to add a channel");
    serde_json::from_str(block.split("```").next().unwrap()).unwrap()
}

/// Returns the contract's schema for a new channel of a kind.
fn schema_of(kind: &str) -> String {
    let mapping = contract().part(&format!("{SCHEMAS}/NewChannel/discriminator/mapping"));
    let address = mapping[kind].as_str().expect("the contract maps the kind");
    address.strip_prefix('#').unwrap().to_owned()
}

#[test]
fn each_kind_of_channel_has_its_schema_and_its_page() {
    let names: BTreeSet<String> = KINDS.iter().map(|kind| kind.name().to_owned()).collect();
    let listed: BTreeSet<String> =
        serde_json::from_value(contract().part(&format!("{SCHEMAS}/ChannelKind/enum")).clone()).unwrap();
    let mapping = contract().part(&format!("{SCHEMAS}/NewChannel/discriminator/mapping"));
    let mapped: BTreeSet<String> = mapping.as_object().unwrap().keys().cloned().collect();
    let written: BTreeSet<String> = fs::read_dir(pages())
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".md")
                .map(str::to_owned)
        })
        .filter(|name| name != "README")
        .collect();
    let list = fs::read_to_string(pages().join("README.md")).unwrap();

    assert_eq!(listed, names, "ChannelKind of openapi.yaml");
    assert_eq!(mapped, names, "NewChannel of openapi.yaml");
    assert_eq!(written, names, "docs/channels");
    for kind in KINDS {
        let name = kind.name();
        let schema = schema_of(name);
        let page = fs::read_to_string(pages().join(format!("{name}.md"))).unwrap();
        let example = example(&page);
        let settings = |value: &Value| Settings::new(name, value["settings"].as_object().unwrap().clone());

        assert!(
            list.contains(&format!("[{name}]({name}.md)")),
            "{name}: docs/channels/README.md"
        );
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        assert_eq!(contract().part(&format!("{schema}/properties/kind/const")), name);
        assert_eq!(example["kind"], name);
        assert_eq!(
            contract().faults(&schema, &example),
            [""; 0],
            "{name}: its page's example"
        );
        assert_eq!(kind.check_new(&settings(&example)), Ok(()), "{name}");
        // The contract and the server both refuse unknown settings.
        let mut odd = example.clone();
        odd["settings"]["carrier_pigeon"] = json!(true);
        assert_ne!(contract().faults(&schema, &odd), [""; 0], "{name}");
        let faults = kind.check_new(&settings(&odd)).unwrap_err();
        assert!(
            faults.iter().all(|fault| fault.pointer.starts_with("/settings")),
            "{name}: {faults:?}"
        );
        let faults = kind
            .check_new(&Settings::new(name, serde_json::Map::new()))
            .unwrap_err();
        assert!(!faults.is_empty(), "{name}: an empty object is accepted");
    }
}
