use serde_json::{Value, json};

use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn target(kind: &str, number: u128) -> Value {
    json!({"kind": kind, "id": id(number)})
}

/// Three steps, in two rounds; `changed` replaces members.
fn settings(changed: Value) -> Value {
    let mut settings = json!({
        "name": "Payments",
        "match": {"tags": ["payments"]},
        "steps": [
            {"delay_seconds": 0, "targets": [target("channel", 1)]},
            {"delay_seconds": 300, "targets": [target("rotation", 1), target("channel", 2)]},
            {"delay_seconds": 900, "targets": [target("channel", 3)]},
        ],
        "repeat_count": 1,
        "repeat_delay_seconds": 1800,
    });
    let Value::Object(changed) = changed else { panic!() };
    settings.as_object_mut().unwrap().extend(changed);
    settings
}

fn read(changed: Value) -> Result<Policy, Vec<FieldError>> {
    Policy::read(serde_json::from_value(settings(changed)).unwrap())
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn after(policy: &Policy, step: u32, round: u32, has_reached: bool) -> Option<(u32, u32, i64)> {
    let pending = policy.after(step, round, has_reached, now())?;
    Some((
        pending.step,
        pending.round,
        (pending.due_at - now()).num_seconds(),
    ))
}

#[test]
fn each_step_waits_for_its_delay_and_the_rounds_end() {
    let policy = read(json!({})).unwrap();

    for (step, round, has_reached, next) in [
        (0, 0, true, Some((1, 0, 300))),
        (1, 0, true, Some((2, 0, 900))),
        (2, 0, true, Some((0, 1, 1_800))),
        (0, 1, true, Some((1, 1, 300))),
        (2, 1, true, None),
        // Nobody was reached: the next step comes at once, but not the next round.
        (0, 0, false, Some((1, 0, 0))),
        (2, 0, false, Some((0, 1, 1_800))),
        // The policy was made shorter meanwhile.
        (9, 0, false, Some((0, 1, 1_800))),
        (9, 1, false, None),
    ] {
        assert_eq!(
            after(&policy, step, round, has_reached),
            next,
            "step {step} of round {round}"
        );
    }
    assert_eq!(policy.targets(1).len(), 2);
    assert_eq!(policy.targets(9), []);
}

#[test]
fn a_policy_says_whom_it_names() {
    let policy = read(json!({})).unwrap();

    assert!(policy.names_channel(ChannelId(id(3))) && policy.names_rotation(RotationId(id(1))));
    // The ids of channels are no ids of rotations.
    assert!(!policy.names_channel(ChannelId(id(4))) && !policy.names_rotation(RotationId(id(2))));
    let pointers: Vec<String> = policy.all_targets().map(|(pointer, _)| pointer).collect();
    assert_eq!(pointers[2], "/steps/1/targets/1");
}

#[test]
fn an_incident_gets_the_oldest_policy_of_its_tags_or_the_default() {
    let candidate = |number: u128, tags: Option<&[&str]>| Candidate {
        id: EscalationPolicyId(id(number)),
        tags: tags.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect()),
        first_delay_seconds: 60,
    };
    let all = [
        candidate(4, Some(&["db", "shop"])),
        candidate(1, None),
        candidate(3, Some(&["payments", "shop"])),
    ];
    let chosen = |candidates: &[Candidate], tags: &[&str]| {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        choose(candidates, &tags).map(|one| one.id.0.as_u128())
    };

    assert_eq!(chosen(&all, &["db"]), Some(4));
    assert_eq!(chosen(&all, &["x", "shop"]), Some(3));
    assert_eq!(chosen(&all, &["x"]), Some(1));
    assert_eq!(chosen(&all, &[]), Some(1));
    assert_eq!(chosen(&all[..1], &["x"]), None);
    assert_eq!(all[0].first(now()).due_at, now() + TimeDelta::seconds(60));
}

#[test]
fn each_fault_has_its_place() {
    let step = |changed: Value| {
        let mut step = json!({"delay_seconds": 0, "targets": [target("channel", 1)]});
        step.as_object_mut()
            .unwrap()
            .extend(changed.as_object().unwrap().clone());
        json!({"steps": [step]})
    };
    for (changed, pointer) in [
        (json!({"name": "\n"}), "/name"),
        (json!({"match": {"tags": []}}), "/match/tags"),
        (json!({"match": {"tags": ["a b"]}}), "/match/tags/0"),
        (json!({"match": {"tags": vec!["x"; 51]}}), "/match/tags"),
        (json!({"steps": []}), "/steps"),
        (
            json!({"steps": vec![json!({"delay_seconds": 0, "targets": []}); 11]}),
            "/steps",
        ),
        (step(json!({"delay_seconds": 86_401})), "/steps/0/delay_seconds"),
        (step(json!({"targets": []})), "/steps/0/targets"),
        (
            step(json!({"targets": vec![target("channel", 1); 11]})),
            "/steps/0/targets",
        ),
        (
            step(json!({"targets": vec![target("channel", 1); 2]})),
            "/steps/0/targets/1",
        ),
        (json!({"repeat_count": 21}), "/repeat_count"),
        (json!({"repeat_delay_seconds": 59}), "/repeat_delay_seconds"),
        (json!({"repeat_delay_seconds": 86_401}), "/repeat_delay_seconds"),
    ] {
        let faults = read(changed.clone()).expect_err(&changed.to_string());
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer], "{changed}: {faults:?}");
    }
    // At the limits.
    let most = json!({
        "steps": vec![json!({"delay_seconds": 86_400, "targets": (0..10).map(|one| target("channel", one)).collect::<Vec<_>>()}); 10],
        "repeat_count": 20,
        "repeat_delay_seconds": 60,
    });
    assert!(read(most).is_ok());
}

#[test]
fn a_policy_cannot_name_a_policy() {
    for changed in [
        json!({"steps": [{"delay_seconds": 0, "targets": [target("escalation_policy", 1)]}]}),
        json!({"steps": [{"delay_seconds": -1, "targets": [target("channel", 1)]}]}),
        json!({"match": {"tags": ["x"], "kinds": []}}),
        json!({"next": id(1)}),
    ] {
        let read = serde_json::from_value::<PolicySettings>(settings(changed.clone()));
        assert!(read.is_err(), "{changed}");
    }
}

#[test]
fn what_a_policy_leaves_out_has_a_default() {
    let mut shortest = settings(json!({}));
    for member in ["match", "repeat_count", "repeat_delay_seconds"] {
        shortest.as_object_mut().unwrap().remove(member);
    }

    let policy = Policy::read(serde_json::from_value(shortest).unwrap()).unwrap();

    assert_eq!(policy.tags(), None);
    assert_eq!(
        (
            policy.settings().repeat_count,
            policy.settings().repeat_delay_seconds
        ),
        (0, 600)
    );
    let stored = serde_json::to_value(policy.settings()).unwrap();
    assert_eq!(Policy::read(serde_json::from_value(stored).unwrap()), Ok(policy));
}
