//! `openapi.yaml` and the server agree: each has every route of the other, and every answer follows the contract.

mod bad;
pub mod caller;
pub mod document;
mod isolation;
mod kinds;
mod outage;
mod routes;
mod story;
pub mod things;
mod webhooks;

use std::collections::BTreeSet;

use deadbeat_domain::change::feed::{ChangeKind, ChangeSubject};
use deadbeat_domain::ids::{ApiKeyId, ChannelId, EscalationPolicyId, IncidentId, ProjectId, RotationId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_http::problem::Problem;
use serde_json::json;

use document::contract;

pub use caller::{Caller, dump};

#[test]
fn every_example_is_what_its_schema_allows() {
    let examples = contract().examples();

    assert!(examples.len() > 20);
    for (schema, example) in examples {
        let faults = contract().faults(&schema, &example);
        assert!(
            faults.is_empty(),
            "the example at {schema}: {faults:#?}\n{example:#}"
        );
    }
}

#[test]
fn the_problem_codes_are_those_of_the_table() {
    let listed = contract()
        .part("/components/schemas/ProblemCode/enum")
        .as_array()
        .unwrap()
        .clone();
    let listed: BTreeSet<String> = listed
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();

    let table: BTreeSet<String> = Problem::ALL
        .iter()
        .map(|problem| problem.code().to_owned())
        .collect();
    assert_eq!(listed, table);
    for problem in Problem::ALL {
        let (code, status, title) = problem.row();
        let body = json!({"type": format!("/docs/problems#{code}"), "title": title, "status": status.as_u16(), "code": code,
            "detail": "", "request_id": "0fe1ed0a-6d3c-4fa8-9f0b-7f1b0ae8d2f5"});
        assert_eq!(
            contract().faults("/components/schemas/Problem", &body),
            [""; 0],
            "{code}"
        );
    }
}

#[test]
fn the_causes_are_those_of_the_table_each_with_its_page() {
    let schema = "/components/schemas/Cause";
    let listed = contract().part(&format!("{schema}/properties/code/enum")).clone();

    let table: Vec<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
    assert_eq!(listed, json!(table));
    for cause in Cause::ALL {
        let url = format!("https://deadbeat.example.org{}", cause.page());
        let alerted = json!({"code": cause.as_str(), "summary": "A sentence.", "url": url});
        assert_eq!(contract().faults(schema, &alerted), [""; 0], "{cause:?}");
    }
}

#[test]
fn the_changes_are_of_the_kinds_of_the_table() {
    let schema = |name: &str| {
        contract()
            .part(&format!("/components/schemas/{name}/enum"))
            .clone()
    };
    let id = uuid::Uuid::nil();
    let watched = SubjectKind::ALL.map(|kind| ChangeSubject::Watched(kind, id));
    let others = [
        ChangeSubject::Incident(IncidentId(id)),
        ChangeSubject::Channel(ChannelId(id)),
        ChangeSubject::Rotation(RotationId(id)),
        ChangeSubject::EscalationPolicy(EscalationPolicyId(id)),
        ChangeSubject::ApiKey(ApiKeyId(id)),
        ChangeSubject::Project(ProjectId(id)),
    ];

    let subjects: Vec<&str> = watched.iter().chain(&others).map(|one| one.kind()).collect();
    assert_eq!(schema("ChangeSubject/properties/kind"), json!(subjects));
    let kinds = ChangeKind::ALL.map(ChangeKind::as_str);
    assert_eq!(schema("Change/properties/what"), json!(kinds));
}

#[test]
fn schemas_of_answers_allow_nothing_that_is_not_named() {
    let schemas = contract().part("/components/schemas").as_object().unwrap();

    // Only objects that the SDK sends may have additional properties.
    let open = |name: &str| {
        name.ends_with("Event") || ["EventBatch", "BeatEntry", "BeatDueEntry", "QueueSample"].contains(&name)
    };
    let objects = schemas.iter().filter(|(_, schema)| schema["type"] == "object");
    for (name, schema) in objects {
        assert_eq!(schema["additionalProperties"] == false, !open(name), "{name}");
    }
}
