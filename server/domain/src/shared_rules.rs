//! Rules that the SDK has too: `tests/fixtures/shared-rules.json` holds them, and `sdk-python/tests/test_shared_rules.py` tests them there.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::celery::{queue, trace, worker};
use crate::incident::cause::Cause;
use crate::incident::command::Command;
use crate::judge::blind_spell;
use crate::limits;
use crate::monitor::run::Outcome;
use crate::people::key::Scope;
use crate::schedule::Schedule;

fn rules() -> Value {
    serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/shared-rules.json"
    )))
    .unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let cases = rules()[name].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{name}");
    cases
}

fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap()
}

fn instant(case: &Value, member: &str) -> DateTime<Utc> {
    text(case, member).parse().unwrap()
}

#[test]
fn a_task_id_names_the_run_as_the_sdk_names_it() {
    for case in cases("run_ids") {
        assert_eq!(
            trace::run_id_of(text(&case, "task_id")).to_string(),
            text(&case, "run_id")
        );
    }
}

#[test]
fn outcomes_keys_and_causes_have_the_sdks_names() {
    let outcomes: Vec<Value> = Outcome::ALL
        .iter()
        .map(|outcome| outcome.as_str().into())
        .collect();
    assert_eq!(cases("outcomes"), outcomes);
    for scope in [Scope::Ping, Scope::Read, Scope::Write] {
        assert_eq!(rules()["key_prefixes"][scope.as_str()], scope.prefix());
    }
    for cause in cases("causes_of_an_audit") {
        assert!(Cause::parse(cause.as_str().unwrap()).is_some(), "{cause}");
    }
}

#[test]
fn limits_and_patience_are_those_that_the_sdk_counts_on() {
    let rules = rules();
    for (name, limit) in [
        ("events_of_a_batch", limits::EVENT_BATCH_COUNT),
        ("entries_of_a_beat", limits::BEAT_ENTRIES),
        ("characters_of_a_hint", crate::schedule::json::HINT_CHARS),
        ("queues_of_a_worker", limits::WORKER_QUEUES),
    ] {
        assert_eq!(rules["limits"][name]["server"], limit, "{name}");
    }
    for (name, patience) in [
        ("longest_wait_in_a_queue", queue::LONGEST_WAIT),
        ("ghost_patience", worker::GHOST_PATIENCE),
        ("longest_delay", crate::time::span(limits::SPAN_SECONDS)),
    ] {
        assert_eq!(rules["seconds"][name], patience.num_seconds(), "{name}");
    }
    let back = rules["return_after_an_outage"]["server"].as_i64().unwrap();
    assert_eq!(blind_spell::SDK_RETURN, TimeDelta::seconds(back));
}

#[test]
fn words_are_quoted_as_the_sdk_quotes_them() {
    for case in cases("words") {
        let line = Command::new("echo")
            .arg(text(&case, "argument"))
            .finish()
            .unwrap();
        assert_eq!(line.as_str(), format!("echo {}", text(&case, "word")));
    }
}

#[test]
fn crontabs_come_when_celery_sends_them() {
    for case in cases("schedules") {
        let schedule = Schedule::from_json(&case["schedule"]).unwrap();
        assert_eq!(
            schedule.next_after(instant(&case, "after")),
            Some(instant(&case, "next")),
            "{case}"
        );
    }
}
