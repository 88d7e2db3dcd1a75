//! Random schedules of every kind in their JSON form, one strategy for each kind. A few are refused, because their
//! dates do not exist.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::schedule::zone::Zone;

/// Returns every kind that has slots.
pub(super) fn any_kind() -> impl Strategy<Value = Value> {
    prop_oneof![interval(), interval_relative(), celery(), solar(), with_a_row()]
}

/// Returns the kinds whose slots are fixed, whatever was reported or sent before.
pub(super) fn with_a_row() -> impl Strategy<Value = Value> {
    prop_oneof![
        interval_from_anchor(),
        cron(),
        cron_with_seconds(),
        quartz(),
        on_calendar()
    ]
}

pub(super) fn interval() -> BoxedStrategy<Value> {
    seconds()
        .prop_map(|seconds| json!({"kind": "interval", "seconds": seconds}))
        .boxed()
}

pub(super) fn interval_relative() -> BoxedStrategy<Value> {
    (seconds(), zone())
        .prop_map(|(seconds, zone)| {
            json!({"kind": "interval", "seconds": seconds, "relative": true, "timezone": zone})
        })
        .boxed()
}

pub(super) fn interval_from_anchor() -> BoxedStrategy<Value> {
    let anchor = "(19[0-9]{2}|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}\
                  (\\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-2]):[03]0)";
    (seconds(), anchor)
        .prop_map(|(seconds, anchor)| json!({"kind": "interval", "seconds": seconds, "anchor": anchor}))
        .boxed()
}

pub(super) fn cron() -> BoxedStrategy<Value> {
    let nickname =
        select(vec!["@hourly", "@daily", "@weekly", "@monthly", "@yearly"]).prop_map(str::to_owned);
    let fields = (Field::MINUTE.text(), Field::HOUR.text(), crontab_date());
    let lines = fields.prop_map(|(minute, hour, date)| format!("{minute} {hour} {date}"));
    expression("cron", prop_oneof![1 => nickname, 19 => lines])
}

pub(super) fn cron_with_seconds() -> BoxedStrategy<Value> {
    let fields = (
        Field::MINUTE.text(),
        Field::MINUTE.text(),
        Field::HOUR.text(),
        crontab_date(),
    );
    expression(
        "cron",
        fields.prop_map(|(second, minute, hour, date)| format!("{second}  {minute} {hour} {date}")),
    )
}

pub(super) fn quartz() -> BoxedStrategy<Value> {
    let time = (Field::MINUTE.text(), Field::MINUTE.text(), Field::HOUR.text());
    let date = prop_oneof![
        3 => Just("?".to_owned()),
        3 => Field::DATE.text(),
        1 => select(vec!["L", "LW", "15,L"]).prop_map(str::to_owned),
    ];
    let weekday = prop_oneof![
        3 => Just("?".to_owned()),
        3 => Field { min: 1, max: 7 }.text(),
        1 => select(vec!["6L", "MONL", "2#1", "SUN#5", "Tues-Friday/2"]).prop_map(str::to_owned),
    ];
    let year = prop_oneof![
        2 => Just(String::new()),
        1 => Just(" *".to_owned()),
        1 => " (19[789][0-9]|20[0-9]{2})-20[4-9][0-9](/[1-9])?",
    ];
    expression(
        "quartz",
        (time, date, Field::MONTH.text(), weekday, year).prop_map(|(time, date, month, weekday, year)| {
            let (second, minute, hour) = time;
            format!("{second} {minute} {hour} {date} {month} {weekday}{year}")
        }),
    )
}

/// Celery crontabs: texts, and lists as the SDK sends them.
pub(super) fn celery() -> BoxedStrategy<Value> {
    let field = |field: Field| {
        let text = celery_text(field).prop_map(Value::from);
        let list = prop::collection::btree_set(field.min..=field.max, 1..20).prop_map(|values| json!(values));
        prop_oneof![2 => text, 1 => list, 1 => (field.min..=field.max).prop_map(Value::from)]
    };
    let weekday = Field { min: 0, max: 6 };
    let fields = (
        field(Field::MINUTE),
        field(Field::HOUR),
        prop_oneof![3 => Just(json!("*")), 1 => field(Field::DATE)],
        prop_oneof![3 => Just(json!("*")), 1 => field(Field::MONTH)],
        prop_oneof![3 => Just(json!("*")), 1 => field(weekday), 1 => Just(json!("fri-mon"))],
        zone(),
    );
    fields
        .prop_map(|(minute, hour, date, month, weekday, zone)| {
            json!({"kind": "celery", "minute": minute, "hour": hour, "day_of_month": date, "month_of_year": month,
                   "day_of_week": weekday, "timezone": zone})
        })
        .boxed()
}

/// Celery's solar events, and places up to the poles.
pub(super) fn solar() -> BoxedStrategy<Value> {
    let events = select(vec![
        "dawn_astronomical",
        "dawn_nautical",
        "dawn_civil",
        "sunrise",
        "solar_noon",
        "sunset",
        "dusk_civil",
        "dusk_nautical",
        "dusk_astronomical",
    ]);
    (events, -90.0..=90.0, -180.0..=180.0)
        .prop_map(|(event, latitude, longitude)| {
            json!({"kind": "solar", "event": event, "latitude": latitude, "longitude": longitude})
        })
        .boxed()
}

/// systemd's calendar expressions, one or two a schedule.
pub(super) fn on_calendar() -> BoxedStrategy<Value> {
    let line = "(Mon |Tue,Thu |Sat\\.\\.Sun )?(\\*|20[2-4][0-9])-(\\*|0[1-9]|1/3)(-(\\*|[012][1-8]|1\\.\\.9)|~0[1-7]) \
                (\\*|0[0-4]|0/3|1[0-9]):(\\*|[0-5]0|0/15)(:(00|0/20|[0-5][0-9]))?( UTC| Europe/Paris)?";
    let shorthand = select(vec![
        "minutely",
        "hourly",
        "daily",
        "weekly",
        "quarterly",
        "yearly",
    ])
    .prop_map(str::to_owned);
    let one = prop_oneof![1 => shorthand, 9 => line];
    expression(
        "oncalendar",
        prop::collection::vec(one, 1..3).prop_map(|lines| lines.join("\n")),
    )
}

fn expression(kind: &'static str, text: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Value> {
    (text, zone())
        .prop_map(move |(expression, zone)| json!({"kind": kind, "expression": expression, "timezone": zone}))
        .boxed()
}

/// Returns day-of-month, month and day-of-week of a crontab.
fn crontab_date() -> impl Strategy<Value = String> {
    let date = prop_oneof![
        4 => Just("*".to_owned()),
        3 => Field::DATE.text(),
        1 => select(vec!["L", "LW", "1,L"]).prop_map(str::to_owned),
    ];
    let weekday = prop_oneof![
        4 => Just("*".to_owned()),
        3 => Field::WEEKDAY.text(),
        1 => select(vec!["5L", "MON#1", "0#5", "mon-fri"]).prop_map(str::to_owned),
    ];
    (date, Field::MONTH.text(), weekday)
        .prop_map(|(date, month, weekday)| format!("{date} {month} {weekday}"))
}

fn seconds() -> impl Strategy<Value = f64> {
    let round = select(vec![
        1.0,
        30.0,
        60.0,
        90.0,
        300.0,
        3_600.0,
        5_400.0,
        86_400.0,
        604_800.0,
        31_622_400.0,
    ]);
    prop_oneof![round, 1.0..7_200.0, 1.0..=31_622_400.0]
}

/// Zones with uncommon clock changes, and sometimes any other zone.
pub(super) fn zone() -> impl Strategy<Value = &'static str> {
    let uncommon = vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        // Changes of half an hour, of two hours, twice a year for Ramadan, at midnight, and once of a day.
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "Africa/Casablanca",
        "America/Havana",
        "Pacific/Apia",
    ];
    prop_oneof![3 => select(uncommon), 1 => select(Zone::all().map(Zone::name).collect::<Vec<_>>())]
}

#[derive(Clone, Copy)]
struct Field {
    min: u32,
    max: u32,
}

impl Field {
    const MINUTE: Self = Self { min: 0, max: 59 };
    const HOUR: Self = Self { min: 0, max: 23 };
    const DATE: Self = Self { min: 1, max: 31 };
    const MONTH: Self = Self { min: 1, max: 12 };
    const WEEKDAY: Self = Self { min: 0, max: 7 };

    /// Returns the items that Debian and Quartz both read.
    fn text(self) -> impl Strategy<Value = String> + Clone {
        let Self { min, max } = self;
        let step = (min..=max, 1..=max.min(20)).prop_map(|(first, step)| format!("{first}/{step}"));
        self.list_with(step.boxed())
    }

    /// Returns the items that all dialects have, and one of this dialect.
    fn list_with(self, own: BoxedStrategy<String>) -> impl Strategy<Value = String> + Clone {
        let Self { min, max } = self;
        // The hours at which clocks change come up more often than by chance.
        let value = || prop_oneof![min..=max, min..=max.min(3)];
        let range =
            || (value(), value()).prop_map(|(one, other)| format!("{}-{}", one.min(other), one.max(other)));
        let item = prop_oneof![
            3 => value().prop_map(|value| value.to_string()),
            1 => range(),
            1 => (range(), 1..=max.min(20)).prop_map(|(range, step)| format!("{range}/{step}")),
            1 => (1..=max.min(20)).prop_map(|step| format!("*/{step}")),
            1 => own,
        ];
        let list = prop::collection::vec(item, 1..4).prop_map(|items| items.join(","));
        prop_oneof![1 => Just("*".to_owned()), 2 => list]
    }
}

/// Returns fields as Celery reads them: no `5/10`, but ranges that wrap around.
fn celery_text(field: Field) -> impl Strategy<Value = String> {
    let Field { min, max } = field;
    let wrapped = (min..=max, min..=max).prop_map(|(first, last)| format!("{first}-{last}"));
    field.list_with(wrapped.boxed())
}
