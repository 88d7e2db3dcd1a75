use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::monitor::FieldError;

fn channel(number: u128) -> ChannelId {
    ChannelId(Uuid::from_u128(number))
}

/// Ann, Ben and Cem take turns of a day at 09:00 in Berlin, from 2026-03-01 on; `changed` replaces members.
fn settings(changed: Value) -> Value {
    let mut settings = json!({
        "name": "Primary",
        "timezone": "Europe/Berlin",
        "people": [
            {"name": "Ann", "channels": [channel(1)]},
            {"name": "Ben", "channels": [channel(2)]},
            {"name": "Cem", "channels": [channel(3)]},
        ],
        "layers": [{"people": ["Ann", "Ben", "Cem"], "handover": "daily", "at": "09:00", "starts_on": "2026-03-01"}],
    });
    let Value::Object(changed) = changed else { panic!() };
    settings.as_object_mut().unwrap().extend(changed);
    settings
}

fn read(changed: Value) -> Result<Rotation, Vec<FieldError>> {
    Rotation::read(serde_json::from_value(settings(changed)).unwrap())
}

/// One layer with a turn of each person.
fn layer(handover: &str, at: &str, starts_on: &str) -> Value {
    json!({"people": ["Ann", "Ben", "Cem"], "handover": handover, "at": at, "starts_on": starts_on})
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The shifts as `person from–to`, in UTC without the seconds; an override has a star.
fn shown(rotation: &Rotation, from: &str, to: &str) -> Vec<String> {
    rotation
        .shifts(at(from), at(to))
        .map(|shift| {
            let star = if shift.is_override { "*" } else { "" };
            let time = |at: DateTime<Utc>| at.format("%m-%d %H:%M").to_string();
            format!(
                "{}{star} {} – {}",
                shift.person.name,
                time(shift.starts_at),
                time(shift.ends_at)
            )
        })
        .collect()
}

#[test]
fn each_person_has_a_day_and_the_next_one_follows() {
    let rotation = read(json!({})).unwrap();

    let shifts = shown(&rotation, "2026-03-02T12:00:00Z", "2026-03-05T12:00:00Z");

    assert_eq!(
        shifts,
        [
            "Ben 03-02 08:00 – 03-03 08:00",
            "Cem 03-03 08:00 – 03-04 08:00",
            "Ann 03-04 08:00 – 03-05 08:00",
            "Ben 03-05 08:00 – 03-06 08:00",
        ]
    );
}

#[test]
fn turns_go_back_before_the_first_date_so_that_somebody_is_always_on_call() {
    let rotation = read(json!({})).unwrap();

    let before = rotation.on_call(at("2026-02-28T08:00:00Z")).unwrap();
    let long_ago = rotation.on_call(at("1970-01-01T00:00:00Z"));

    assert_eq!(before.person.name, "Cem");
    assert!(long_ago.is_some());
    assert_eq!(rotation.on_call(at("1969-12-31T23:59:59Z")), None);
    assert_eq!(rotation.on_call(at("2200-01-01T00:00:00Z")), None);
}

#[test]
fn a_week_in_which_the_clock_changes_is_an_hour_shorter_or_longer() {
    let rotation = read(json!({"layers": [layer("weekly", "09:00", "2026-03-23")]})).unwrap();

    let hours = |text: &str| {
        let shift = rotation.on_call(at(text)).unwrap();
        (shift.ends_at - shift.starts_at).num_hours()
    };

    assert_eq!(hours("2026-03-18T00:00:00Z"), 168);
    assert_eq!(hours("2026-03-25T00:00:00Z"), 167);
    assert_eq!(hours("2026-10-21T00:00:00Z"), 169);
    assert_eq!(
        shown(&rotation, "2026-03-25T00:00:00Z", "2026-04-01T00:00:00Z"),
        ["Ann 03-23 08:00 – 03-30 07:00", "Ben 03-30 07:00 – 04-06 07:00"]
    );
}

#[test]
fn a_handover_that_the_clock_skips_is_at_the_end_of_the_gap_and_one_shown_twice_is_the_first() {
    let rotation = read(json!({"layers": [layer("daily", "02:30", "2026-03-28")]})).unwrap();

    assert_eq!(
        shown(&rotation, "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"),
        [
            "Ann 03-28 01:30 – 03-29 01:00",
            "Ben 03-29 01:00 – 03-30 00:30",
            "Cem 03-30 00:30 – 03-31 00:30",
        ]
    );
    assert_eq!(
        shown(&rotation, "2026-10-24T12:00:00Z", "2026-10-26T01:00:00Z"),
        ["Ann 10-24 00:30 – 10-25 00:30", "Ben 10-25 00:30 – 10-26 01:30",]
    );
}

/// Samoa had no 30 December 2011.
#[test]
fn who_has_a_day_that_the_calendar_skips_has_no_shift() {
    let rotation =
        read(json!({"timezone": "Pacific/Apia", "layers": [layer("daily", "00:00", "2011-12-29")]}));

    assert_eq!(
        shown(&rotation.unwrap(), "2011-12-29T12:00:00Z", "2012-01-01T00:00:00Z"),
        [
            "Ann 12-29 10:00 – 12-30 10:00",
            "Cem 12-30 10:00 – 12-31 10:00",
            "Ann 12-31 10:00 – 01-01 10:00"
        ]
    );
}

#[test]
fn a_later_layer_replaces_the_first_one_in_its_hours() {
    let nights = json!({"people": ["Cem"], "handover": "weekly", "at": "00:00", "starts_on": "2026-03-02",
        "only": {"weekdays": ["mon", "tue"], "from": "18:00", "to": "08:00"}});
    let layers =
        json!([{"people": ["Ann"], "handover": "weekly", "at": "09:00", "starts_on": "2026-03-02"}, nights]);
    let rotation = read(json!({"layers": layers})).unwrap();

    assert_eq!(
        shown(&rotation, "2026-03-09T12:00:00Z", "2026-03-12T12:00:00Z"),
        [
            "Ann 03-09 08:00 – 03-09 17:00",
            "Cem 03-09 17:00 – 03-10 07:00",
            "Ann 03-10 07:00 – 03-10 17:00",
            "Cem 03-10 17:00 – 03-11 07:00",
            // Over a weekend and many days without an edge.
            "Ann 03-11 07:00 – 03-16 08:00",
        ]
    );
}

#[test]
fn a_handover_within_the_hours_of_a_layer_is_a_handover() {
    let nights = json!({"people": ["Ben", "Cem"], "handover": "daily", "at": "00:00", "starts_on": "2026-03-09",
        "only": {"from": "22:00", "to": "02:00"}});
    let layers =
        json!([{"people": ["Ann"], "handover": "weekly", "at": "09:00", "starts_on": "2026-03-02"}, nights]);
    let rotation = read(json!({"layers": layers})).unwrap();

    assert_eq!(
        shown(&rotation, "2026-03-09T21:00:00Z", "2026-03-10T02:00:00Z"),
        [
            "Ben 03-09 21:00 – 03-09 23:00",
            "Cem 03-09 23:00 – 03-10 01:00",
            "Ann 03-10 01:00 – 03-10 21:00",
        ]
    );
}

#[test]
fn an_override_replaces_all_layers_and_the_later_one_replaces_the_earlier_one() {
    let overrides = json!([
        {"person": "Cem", "from": "2026-03-02", "until": "2026-03-04"},
        {"person": "Ann", "from": "2026-03-03T12:00", "until": "2026-03-03T18:00"},
    ]);
    let rotation = read(json!({"overrides": overrides})).unwrap();

    assert_eq!(
        shown(&rotation, "2026-03-01T12:00:00Z", "2026-03-04T12:00:00Z"),
        [
            "Ann 03-01 08:00 – 03-01 23:00",
            "Cem* 03-01 23:00 – 03-03 11:00",
            "Ann* 03-03 11:00 – 03-03 17:00",
            "Cem* 03-03 17:00 – 03-03 23:00",
            "Cem 03-03 23:00 – 03-04 08:00",
            "Ann 03-04 08:00 – 03-05 08:00",
        ]
    );
}

#[test]
fn each_round_tries_the_next_channel_that_can_be_used() {
    let person = Person {
        name: "Ann".to_owned(),
        channels: [1, 2, 3].map(channel).to_vec(),
    };
    let tried = |usable: &[u128]| -> Vec<Option<ChannelId>> {
        let usable: Vec<ChannelId> = usable.iter().copied().map(channel).collect();
        (0..4)
            .map(|round| person.channel(round, |id| usable.contains(&id)))
            .collect()
    };

    assert_eq!(
        tried(&[1, 2, 3]),
        [1, 2, 3, 1].map(|number| Some(channel(number)))
    );
    assert_eq!(tried(&[1, 3]), [1, 3, 1, 3].map(|number| Some(channel(number))));
    assert_eq!(tried(&[]), [None; 4]);
}

#[test]
fn names_are_kept_in_their_normal_form_and_a_former_zone_under_its_present_name() {
    let composed = "Zoe\u{301}";
    let rotation = read(json!({
        "timezone": "Europe/Kiev",
        "people": [{"name": composed, "channels": [channel(1)]}],
        "layers": [{"people": ["Zo\u{e9}"], "handover": "daily", "at": "09:00", "starts_on": "2026-03-01"}],
    }))
    .unwrap();

    assert_eq!(rotation.settings().timezone, "Europe/Kyiv");
    assert_eq!(rotation.settings().people[0].name, "Zo\u{e9}");
    assert_eq!(Rotation::read(rotation.settings().clone()), Ok(rotation));
}

#[test]
fn each_fault_has_its_place() {
    let person = |name: &str| json!({"name": name, "channels": [channel(1)]});
    let one = |changed: Value| {
        let mut one = layer("daily", "09:00", "2026-03-01");
        one.as_object_mut()
            .unwrap()
            .extend(changed.as_object().unwrap().clone());
        json!({"layers": [one]})
    };
    let second = |only: Value| {
        let mut nights = layer("daily", "09:00", "2026-03-01");
        nights["only"] = only;
        json!({"layers": [layer("daily", "09:00", "2026-03-01"), nights]})
    };
    let stand_in = |person: &str, from: &str, until: &str| json!({"overrides": [{"person": person, "from": from, "until": until}]});
    for (changed, pointer) in [
        (json!({"name": ""}), "/name"),
        (json!({"name": "x".repeat(101)}), "/name"),
        (json!({"timezone": "Europe/Atlantis"}), "/timezone"),
        (json!({"timezone": "europe/berlin"}), "/timezone"),
        (json!({"people": []}), "/people"),
        (json!({"people": vec![person("Ann"); 51]}), "/people"),
        (json!({"layers": []}), "/layers"),
        (
            json!({"layers": vec![layer("daily", "09:00", "2026-03-01"); 6]}),
            "/layers",
        ),
        (
            json!({"overrides": vec![json!({"person": "Ann", "from": "2026-03-01", "until": "2026-03-02"}); 101]}),
            "/overrides",
        ),
        (
            json!({"people": [person("Ann"), person("Ben"), person("Cem"), person("Ben")]}),
            "/people/3/name",
        ),
        (
            json!({"people": [person("Ann"), person("Ben"), person("Cem"), person("a\nb")]}),
            "/people/3/name",
        ),
        (
            json!({"people": [person("Ann"), person("Ben"), {"name": "Cem", "channels": []}]}),
            "/people/2/channels",
        ),
        (
            json!({"people": [person("Ann"), person("Ben"), {"name": "Cem", "channels": vec![channel(9); 2]}]}),
            "/people/2/channels/1",
        ),
        (one(json!({"people": []})), "/layers/0/people"),
        (one(json!({"people": ["Ann", "Nobody"]})), "/layers/0/people/1"),
        (one(json!({"at": "24:00"})), "/layers/0/at"),
        (one(json!({"at": "9:00"})), "/layers/0/at"),
        (one(json!({"at": "+9:00"})), "/layers/0/at"),
        (one(json!({"at": "09:00:00"})), "/layers/0/at"),
        (one(json!({"starts_on": "2026-02-30"})), "/layers/0/starts_on"),
        (one(json!({"starts_on": "1969-12-31"})), "/layers/0/starts_on"),
        (one(json!({"starts_on": "2200-01-01"})), "/layers/0/starts_on"),
        (
            one(json!({"only": {"from": "18:00", "to": "08:00"}})),
            "/layers/0/only",
        ),
        (second(json!({"from": "18:00", "to": "8"})), "/layers/1/only/to"),
        (second(json!({"from": "x", "to": "08:00"})), "/layers/1/only/from"),
        (
            second(json!({"weekdays": [], "from": "18:00", "to": "08:00"})),
            "/layers/1/only/weekdays",
        ),
        (
            stand_in("Nobody", "2026-03-01", "2026-03-02"),
            "/overrides/0/person",
        ),
        (stand_in("Ann", "yesterday", "2026-03-02"), "/overrides/0/from"),
        (
            stand_in("Ann", "2026-03-01", "2026-03-02T9:00"),
            "/overrides/0/until",
        ),
        (stand_in("Ann", "2026-03-01", "2026-03-01"), "/overrides/0/until"),
        (stand_in("Ann", "2026-03-01", "2027-03-03"), "/overrides/0/until"),
        // Both are the end of the gap.
        (
            stand_in("Ann", "2026-03-29T02:00", "2026-03-29T03:00"),
            "/overrides/0/until",
        ),
    ] {
        let faults = read(changed.clone()).expect_err(&changed.to_string());
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer], "{changed}: {faults:?}");
    }
}

#[test]
fn a_body_with_what_nobody_knows_is_refused() {
    for changed in [
        json!({"nickname": "x"}),
        json!({"people": [{"name": "Ann", "channels": [], "phone": "1"}]}),
        json!({"layers": [{"people": [], "handover": "monthly", "at": "09:00", "starts_on": "2026-03-01"}]}),
    ] {
        let read = serde_json::from_value::<RotationSettings>(settings(changed.clone()));
        assert!(read.is_err(), "{changed}");
    }
}
