use uuid::Uuid;

use super::*;
use crate::alert::hold::{Scope, Time};
use crate::alert::message::{
    BlindNotice, CauseOfIncident, ChannelDisabled, Confirmation, DisabledChannel, Event, Incident,
    IncidentEvent, Phase, Project, Spell,
};
use crate::ids::{IncidentId, ProjectId};
use crate::incident::{Subject, SubjectKind};

const DOCUMENT: &str = include_str!("../../../../../docs/alerting.md");

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn id(number: u128) -> ChannelId {
    ChannelId(Uuid::from_u128(number))
}

/// The channel that a message is about: it is tested, asks for its confirmation, or failed.
const ITSELF: u128 = 1;

fn message(alert: Alert) -> Message {
    let project = Project {
        id: ProjectId(Uuid::nil()),
        name: "Shop".to_owned(),
    };
    let event = match alert {
        Alert::Test => Event::Test,
        Alert::ChannelDisabled => Event::ChannelDisabled(ChannelDisabled {
            channel: DisabledChannel {
                id: id(ITSELF),
                name: "pager".to_owned(),
                kind: "webhook".to_owned(),
            },
            reason: "answered 410".to_owned(),
            unsubscribed: false,
            project,
        }),
        Alert::BlindSpell => Event::BlindSpell(BlindNotice {
            blind_spell: Spell {
                started_at: now(),
                ended_at: now(),
            },
            monitors: 1,
            summary: String::new(),
            project,
        }),
        Alert::Confirmation => Event::Confirmation(Confirmation {
            site: String::new(),
            url: String::new(),
            expires: 0,
        }),
        of_incident => Event::Incident(Box::new(IncidentEvent {
            phase: Phase::ALL
                .into_iter()
                .find(|phase| phase.alert() == of_incident)
                .unwrap(),
            incident: Incident {
                id: IncidentId(Uuid::nil()),
                project,
                subject: Subject {
                    kind: SubjectKind::Monitor,
                    id: Uuid::nil(),
                    name: "backup".to_owned(),
                },
                cause: CauseOfIncident {
                    code: "MISSED".to_owned(),
                    summary: String::new(),
                    url: None,
                },
                severity: None,
                evidence: Vec::new(),
                repair: Vec::new(),
                members: Vec::new(),
                member_count: 0,
                flapping: false,
                opened_at: now(),
                resolved_at: None,
                acknowledged_at: None,
                acknowledged_by: None,
                acknowledge_url: None,
                url: String::new(),
            },
            monitor: None,
        })),
    };
    Message { at: now(), event }
}

fn well(number: u128) -> Channel {
    Channel {
        id: id(number),
        is_disabled: false,
        is_confirmed: true,
        is_failing: false,
        reported_at: None,
        routing: Routing::default(),
    }
}

fn set(numbers: &[u128]) -> BTreeSet<ChannelId> {
    numbers.iter().copied().map(id).collect()
}

/// The rows of both tables: what happened, what it is about, and its alert. A monitor with its own list chose channel 2.
fn rows() -> Vec<(&'static str, Alert, &'static str)> {
    vec![
        ("`opened`, a monitor with its own list", Alert::Opened, "chosen"),
        (
            "`opened`, a monitor that alerts all, or another subject",
            Alert::Opened,
            "project",
        ),
        ("`reminder`", Alert::Reminder, "project"),
        ("`acknowledged`", Alert::Acknowledged, "project"),
        ("`escalated`", Alert::Escalated, "project"),
        ("`resolved`", Alert::Resolved, "project"),
        ("`test`", Alert::Test, "channel"),
        ("`channel_disabled`", Alert::ChannelDisabled, "channel"),
        ("`blind_spell`", Alert::BlindSpell, "project"),
        ("`confirmation`", Alert::Confirmation, "channel"),
    ]
}

/// What a channel gets, as the tables write it.
fn cell(alert: Alert, topic: &str, channel: Channel, history: &History) -> &'static str {
    let chosen = set(&[2]);
    let topic = match topic {
        "chosen" => Topic::Chosen(&chosen),
        "channel" => Topic::Channel(id(ITSELF)),
        _ => Topic::Project,
    };
    let step = [id(6)];
    let channel_id = channel.id;
    let mut channels = vec![channel];
    if channel_id != id(ITSELF) {
        channels.push(well(ITSELF));
    }
    let rules = Rules {
        channels: &channels,
        history: Some(history),
        step: &step,
        holds: &[],
        tags: &[],
    };
    let found = recipients(&message(alert), topic, &rules, now());
    match found.iter().find(|recipient| recipient.channel == channel_id) {
        None => "–",
        Some(recipient) if recipient.withheld.is_some() => "withheld",
        Some(_) => "sent",
    }
}

fn table(head: &[&str], row: impl Fn(Alert, &str) -> Vec<&'static str>) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut out = line([&["what happened"], head].concat());
    out.push_str(&line(vec!["---"; head.len() + 1]));
    for (name, alert, topic) in rows() {
        out.push_str(&line([vec![name], row(alert, topic)].concat()));
    }
    out
}

fn assert_documented(table: &str) {
    assert!(
        DOCUMENT.contains(table),
        "docs/alerting.md and `recipients` differ. It must hold:\n\n{table}"
    );
}

#[test]
fn who_is_addressed_is_what_the_document_says() {
    let history = History {
        opened: set(&[4]),
        escalated: set(&[5]),
        ..History::default()
    };
    let head = [
        "itself",
        "chosen for the monitor",
        "any other",
        "got `opened`",
        "joined by escalation",
        "named by the step",
    ];

    assert_documented(&table(&head, |alert, topic| {
        (1..=6)
            .map(|number| cell(alert, topic, well(number), &history))
            .collect()
    }));
}

#[test]
fn the_state_of_a_channel_decides_as_the_document_says() {
    let head = [
        "works",
        "its last attempt failed",
        "switched off",
        "address not confirmed",
    ];
    let states: [fn(Channel) -> Channel; 4] = [
        |channel| channel,
        |channel| Channel {
            is_failing: true,
            ..channel
        },
        |channel| Channel {
            is_disabled: true,
            ..channel
        },
        |channel| Channel {
            is_confirmed: false,
            ..channel
        },
    ];

    assert_documented(&table(&head, |alert, topic| {
        // Whether the message is meant for the channel is the other table's subject.
        let addressed = match alert {
            Alert::Test | Alert::Confirmation => ITSELF,
            Alert::Escalated => 6,
            _ => 2,
        };
        let history = History {
            opened: set(&[2]),
            ..History::default()
        };
        states
            .iter()
            .map(|state| cell(alert, topic, state(well(addressed)), &history))
            .collect()
    }));
}

#[test]
fn every_kind_of_alert_stands_in_the_tables() {
    for alert in Alert::ALL {
        assert!(rows().iter().any(|(_, of, _)| *of == alert), "{alert:?}");
    }
}

#[test]
fn a_project_is_alerted_once_a_day_that_the_same_channel_was_switched_off() {
    let alerted = |reported_at| {
        let channels = [
            Channel {
                reported_at,
                ..well(ITSELF)
            },
            well(2),
            well(3),
        ];
        let rules = Rules {
            channels: &channels,
            history: None,
            step: &[],
            holds: &[],
            tags: &[],
        };
        let message = message(Alert::ChannelDisabled);
        recipients(&message, Topic::Channel(id(ITSELF)), &rules, now()).len()
    };

    assert_eq!(alerted(None), 2);
    assert_eq!(alerted(Some(now())), 0);
    assert_eq!(
        alerted(Some(now() - NOTICE_AGAIN + TimeDelta::microseconds(1))),
        0
    );
    assert_eq!(alerted(Some(now() - NOTICE_AGAIN)), 2);
    assert_eq!(
        alerted(Some(now() + TimeDelta::seconds(1))),
        2,
        "the clock stepped back"
    );
}

#[test]
fn nobody_is_alerted_of_an_incident_through_a_channel_of_another_project() {
    let history = History {
        opened: set(&[77]),
        escalated: set(&[78]),
        ..History::default()
    };
    let step = [id(79)];
    let chosen = set(&[80]);
    let channels = [well(2)];
    let rules = Rules {
        channels: &channels,
        history: Some(&history),
        step: &step,
        holds: &[],
        tags: &[],
    };
    for alert in [Alert::Opened, Alert::Reminder, Alert::Escalated, Alert::Resolved] {
        let found = recipients(&message(alert), Topic::Chosen(&chosen), &rules, now());

        assert_eq!(found, [], "{alert:?}");
    }
}

fn with_rules(number: u128, rules: serde_json::Value) -> Channel {
    let mut faults = Vec::new();
    let mut channel = well(number);
    channel.routing.apply(rules.as_object().unwrap(), &mut faults);
    assert_eq!(faults, []);
    channel
}

#[test]
fn the_events_of_a_channel_decide_what_it_gets() {
    let all = ["opened", "reminder", "acknowledged", "escalated", "resolved"];
    let history = History {
        opened: set(&[1, 2, 3]),
        ..History::default()
    };
    let none = set(&[]);
    for (number, events, topic, received) in [
        (1, serde_json::json!(null), Topic::Project, &all[..]),
        (
            2,
            serde_json::json!(["opened", "resolved"]),
            Topic::Project,
            &["opened", "resolved"],
        ),
        (3, serde_json::json!(["reminder"]), Topic::Project, &["reminder"]),
        // It has not got `opened`, and leaves `opened` out.
        (
            4,
            serde_json::json!(["reminder", "resolved"]),
            Topic::Project,
            &["reminder", "resolved"],
        ),
        // It asks for `opened`, and has not got it.
        (
            5,
            serde_json::json!(["opened", "reminder", "resolved"]),
            Topic::Project,
            &["opened"],
        ),
        (
            6,
            serde_json::json!(["reminder", "resolved"]),
            Topic::Chosen(&none),
            &[],
        ),
    ] {
        let channels = [with_rules(number, serde_json::json!({"events": events}))];
        let rules = Rules {
            channels: &channels,
            history: Some(&history),
            step: &[id(1)],
            holds: &[],
            tags: &[],
        };
        let found: Vec<&str> = all
            .into_iter()
            .filter(|alert| {
                let message = message(Alert::parse(alert).unwrap());
                !recipients(&message, topic, &rules, now()).is_empty()
            })
            .collect();

        assert_eq!(found, received, "channel {number}: {events}");
    }
}

#[test]
fn only_what_is_meant_for_a_channel_waits_for_it() {
    let mute = Hold {
        scope: Scope::Project,
        time: Time::Always,
    };
    let window = Hold {
        scope: Scope::Project,
        time: Time::Once {
            from: now(),
            until: now() + TimeDelta::hours(1),
        },
    };
    let unconfirmed = Channel {
        is_confirmed: false,
        ..well(3)
    };
    let channels = [
        well(1),
        with_rules(2, serde_json::json!({"delay_seconds": 7_200})),
        unconfirmed,
        with_rules(4, serde_json::json!({"match": {"causes": ["BEAT_*"]}})),
    ];
    let received = |alert, holds: &[Hold]| {
        let rules = Rules {
            channels: &channels,
            history: None,
            step: &[],
            holds,
            tags: &[],
        };
        recipients(&message(alert), Topic::Project, &rules, now())
    };
    let to = |number, withheld, hours: Option<i64>| Recipient {
        channel: id(number),
        withheld,
        not_before: hours.map(|hours| now() + TimeDelta::hours(hours)),
    };
    let not_confirmed = to(3, Some(Withheld::NotConfirmed), None);

    assert_eq!(
        received(Alert::Opened, &[]),
        [to(1, None, None), to(2, None, Some(2)), not_confirmed]
    );
    assert_eq!(
        received(Alert::Opened, &[window]),
        [to(1, None, Some(1)), to(2, None, Some(2)), not_confirmed]
    );
    assert_eq!(
        received(Alert::Opened, std::slice::from_ref(&mute)),
        [
            to(1, Some(Withheld::Muted), None),
            to(2, Some(Withheld::Muted), None),
            not_confirmed
        ]
    );
    assert_eq!(
        received(Alert::BlindSpell, &[mute]).len(),
        4,
        "no rule applies to a message without an incident"
    );
}

#[test]
fn a_channel_is_not_reminded_while_a_message_waits_for_it() {
    let history = History {
        opened: set(&[1, 2]),
        waiting: set(&[2]),
        ..History::default()
    };
    let channels = [well(1), well(2)];
    let rules = Rules {
        channels: &channels,
        history: Some(&history),
        step: &[],
        holds: &[],
        tags: &[],
    };

    let found = recipients(&message(Alert::Reminder), Topic::Project, &rules, now());

    assert_eq!(found, [Recipient::at_once(id(1))]);
}

/// Measured by hand: `cargo test --release -p deadbeat-domain --lib recipients_take -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn recipients_take_less_than_five_microseconds() {
    let rules = serde_json::json!({"minimum_severity": "warning", "delay_seconds": 60,
        "match": {"tags": ["payments", "shop"], "subjects": ["monitor", "beat"], "causes": ["QUEUE_*", "MISSED"]},
        "quiet_hours": {"timezone": "Europe/Berlin", "times": [{"from": "22:00", "to": "07:00"}]}});
    let channels: Vec<Channel> = (1..=20).map(|number| with_rules(number, rules.clone())).collect();
    let tags = ["prod".to_owned(), "shop".to_owned()];
    let rules = Rules {
        channels: &channels,
        history: None,
        step: &[],
        holds: &[],
        tags: &tags,
    };
    let message = message(Alert::Opened);
    let began = std::time::Instant::now();
    for _ in 0..100_000 {
        assert_eq!(
            std::hint::black_box(recipients(&message, Topic::Project, &rules, now())).len(),
            20
        );
    }
    println!("{:?} a message", began.elapsed() / 100_000);
}
