//! A check-in: what it says about a run, and the settings that it brings for its monitor.

use chrono::TimeDelta;
use deadbeat_domain::limits;
use deadbeat_domain::monitor::ping::PingKind;
use deadbeat_services::monitor::Change;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::compat::door::slug_of;

/// The tag of monitors whose settings come with check-ins.
pub(super) const MARK: &str = "sentry";
/// The environment of a check-in that names none.
const PRODUCTION: &str = "production";
/// Tolerated lateness in minutes when the client names none.
const MARGIN_MINUTES: f64 = 1.0;
/// How long a run may take in minutes when the client does not say.
const RUNTIME_MINUTES: f64 = 30.0;

/// A check-in in the words of Deadbeat.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CheckIn {
    /// The slug of its monitor.
    pub(super) slug: String,
    /// What happened to the run.
    pub(super) kind: PingKind,
    /// The id of the run. None: the client gave none, or only zeros, which mean its open run.
    pub(super) run_id: Option<Uuid>,
    /// The length of the run by the client's clock.
    pub(super) duration: Option<TimeDelta>,
    /// The text to keep with the ping.
    pub(super) body: Vec<u8>,
    /// The settings of the monitor, if the check-in brings some.
    pub(super) settings: Option<Result<Settings, String>>,
}

/// The settings of a monitor.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// All settings of a new monitor.
    pub(super) created: Change,
    /// Those that the client named.
    pub(super) kept: Change,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// Reads a check-in.
///
/// # Errors
/// One line for the client: no monitor or no usable status.
pub(super) fn read(item: &Map<String, Value>) -> Result<CheckIn, String> {
    let text = |name: &str| {
        item.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let name = text("monitor_slug").ok_or("monitor_slug is missing")?;
    let kind = match text("status") {
        Some("in_progress") => PingKind::Start,
        Some("ok") => PingKind::Success,
        Some("error") => PingKind::Fail,
        // Only the server decides that a run was missed or timed out.
        _ => return Err("status is not one of in_progress, ok, error".to_owned()),
    };
    let environment = text("environment").unwrap_or(PRODUCTION);
    // Each environment of a monitor is watched separately.
    let (full, shown) = if environment == PRODUCTION {
        (name.to_owned(), name.to_owned())
    } else {
        (format!("{name}@{environment}"), format!("{name} ({environment})"))
    };
    let duration = item.get("duration").and_then(Value::as_f64);
    let trace = item
        .get("contexts")
        .and_then(|contexts| contexts.pointer("/trace/trace_id"))
        .and_then(Value::as_str);
    let facts = [
        ("environment", Some(environment)),
        ("release", text("release")),
        ("server_name", text("server_name")),
        ("trace_id", trace),
    ];
    let facts = facts
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}: {value}\n")));
    let slug = slug_of(&full);
    let settings = item
        .get("monitor_config")
        .filter(|config| config.as_object().is_some_and(|config| !config.is_empty()))
        .map(|config| {
            let tag = Some(environment).filter(|environment| *environment != PRODUCTION);
            settings(config, is_of_celery(item), &slug, &shown, tag)
        });
    Ok(CheckIn {
        slug,
        kind,
        run_id: text("check_in_id")
            .and_then(|id| Uuid::try_parse(id).ok())
            .filter(|id| !id.is_nil()),
        duration: duration
            .filter(|seconds| (0.0..=limits::SPAN_SECONDS).contains(seconds))
            .map(|seconds| TimeDelta::microseconds((seconds * 1e6) as i64)),
        body: facts.collect::<String>().into_bytes(),
        settings,
    })
}

/// True if the check-in comes from a program with Celery's integration, whose crontabs have Celery's meaning.
fn is_of_celery(item: &Map<String, Value>) -> bool {
    let integrations = item.get("sdk").and_then(|sdk| sdk.get("integrations"));
    integrations
        .and_then(Value::as_array)
        .is_some_and(|names| names.iter().any(|name| name == "celery"))
}

fn settings(
    config: &Value,
    is_of_celery: bool,
    slug: &str,
    shown: &str,
    environment: Option<&str>,
) -> Result<Settings, String> {
    let schedule = schedule(config, is_of_celery)?;
    let minutes = |name: &str, most: f64| match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            // Sentry reads 0 as 1.
            Some(0.0) => Ok(Some(60.0)),
            Some(minutes) if (0.0..=most).contains(&minutes) => Ok(Some(minutes * 60.0)),
            _ => Err(format!(
                "monitor_config.{name} is not a number of minutes up to {most}"
            )),
        },
    };
    let most = limits::SPAN_SECONDS / 60.0;
    let (margin, runtime) = (minutes("checkin_margin", most)?, minutes("max_runtime", most)?);
    // A tag has no blanks. An environment with some is in the name all the same.
    let environment = environment.filter(|environment| !environment.contains(char::is_whitespace));
    let tags = [MARK].into_iter().chain(environment).map(str::to_owned).collect();
    let kept = Change {
        schedule: Some(schedule),
        grace_seconds: margin,
        longest_run_seconds: runtime.map(Some),
        failure_threshold: threshold(config, "failure_issue_threshold")?,
        recovery_threshold: threshold(config, "recovery_threshold")?,
        ..Change::default()
    };
    let created = Change {
        name: Some(shown.chars().take(limits::MONITOR_NAME_CHARS).collect()),
        slug: Some(slug.to_owned()),
        tags: Some(tags),
        grace_seconds: Some(margin.unwrap_or(MARGIN_MINUTES * 60.0)),
        longest_run_seconds: Some(Some(runtime.unwrap_or(RUNTIME_MINUTES * 60.0))),
        ..kept.clone()
    };
    Ok(Settings { created, kept })
}

/// Returns a number of runs in a row. Sentry allows more of them than Deadbeat does.
fn threshold(config: &Value, name: &str) -> Result<Option<i64>, String> {
    let most = i64::from(limits::THRESHOLD_RUNS);
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(runs) if runs >= 1 => Ok(Some(runs.min(most))),
            _ => Err(format!("monitor_config.{name} is not a number of runs from 1")),
        },
    }
}

/// Translates a schedule into the JSON form of Deadbeat's.
fn schedule(config: &Value, is_of_celery: bool) -> Result<Value, String> {
    let schedule = config
        .get("schedule")
        .ok_or("monitor_config.schedule is missing")?;
    let zone = config
        .get("timezone")
        .and_then(Value::as_str)
        .filter(|zone| !zone.is_empty());
    match schedule.get("type").and_then(Value::as_str) {
        Some("crontab") => {
            let text = schedule.get("value").and_then(Value::as_str);
            let text = without_brackets(text.ok_or("monitor_config.schedule.value is not a text")?);
            let zone = zone.unwrap_or("UTC");
            let fields: Vec<&str> = text.split_whitespace().collect();
            Ok(match fields[..] {
                [minute, hour, day, month, weekday] if is_of_celery => json!({
                    "kind": "celery", "minute": minute, "hour": hour, "day_of_month": day, "month_of_year": month,
                    "day_of_week": weekday, "timezone": zone,
                }),
                _ => json!({"kind": "cron", "expression": text, "timezone": zone}),
            })
        }
        Some("interval") => {
            let value = schedule.get("value").and_then(Value::as_f64);
            let value = value.ok_or("monitor_config.schedule.value is not a number")?;
            let unit = match schedule.get("unit").and_then(Value::as_str) {
                // Not a unit of Sentry, but of Deadbeat.
                Some("second") => 1.0,
                Some("minute") => 60.0,
                Some("hour") => 3_600.0,
                Some("day") => 86_400.0,
                Some("week") => 7.0 * 86_400.0,
                // The longest ones: a report is then never expected too early.
                Some("month") => 31.0 * 86_400.0,
                Some("year") => 366.0 * 86_400.0,
                _ => return Err(
                    "monitor_config.schedule.unit is not one of second, minute, hour, day, week, month, year"
                        .to_owned(),
                ),
            };
            Ok(json!({"kind": "interval", "seconds": value * unit}))
        }
        _ => Err("monitor_config.schedule.type is not one of crontab, interval".to_owned()),
    }
}

/// Writes the lists of a crontab as crontabs do. Celery's integration sends a field that is a list or set in Python as Python prints it: `[0, 30]`.
fn without_brackets(text: &str) -> String {
    let mut depth = 0;
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth -= 1,
            '\'' | '"' | ' ' if depth > 0 => {}
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &Value, is_of_celery: bool) -> Result<Value, String> {
        settings(config, is_of_celery, "job", "job", None)
            .map(|settings| settings.kept.schedule.unwrap_or_default())
    }

    fn crontab(value: &str) -> Value {
        json!({"schedule": {"type": "crontab", "value": value}, "timezone": "Asia/Tokyo"})
    }

    #[test]
    fn a_crontab_of_celery_is_one_and_any_other_is_of_cron() {
        let celery = |minute: &str, day: &str, weekday: &str| {
            json!({"kind": "celery", "minute": minute, "hour": "4", "day_of_month": day, "month_of_year": "*", "day_of_week": weekday,
                "timezone": "Asia/Tokyo"})
        };
        let cron =
            |expression: &str| json!({"kind": "cron", "expression": expression, "timezone": "Asia/Tokyo"});
        for (value, is_of_celery, wanted) in [
            ("0 4 * * *", false, cron("0 4 * * *")),
            ("@daily", false, cron("@daily")),
            ("@daily", true, cron("@daily")),
            ("0 4 13 * fri", true, celery("0", "13", "fri")),
            // As Python prints lists, sets and tuples.
            ("[0, 30] 4 * * *", true, celery("0,30", "*", "*")),
            (
                "{0, 30} 4 (1, 15) * ['mon', 'fri']",
                true,
                celery("0,30", "1,15", "mon,fri"),
            ),
        ] {
            assert_eq!(of(&crontab(value), is_of_celery).as_ref(), Ok(&wanted), "{value}");
        }
        let utc = json!({"schedule": {"type": "crontab", "value": "0 4 * * *"}, "timezone": ""});
        assert_eq!(of(&utc, false).unwrap()["timezone"], "UTC");
    }

    #[test]
    fn each_unit_of_an_interval_has_its_seconds() {
        for (unit, seconds) in [
            ("second", 2.0),
            ("minute", 120.0),
            ("hour", 7_200.0),
            ("day", 172_800.0),
            ("week", 1_209_600.0),
            ("month", 5_356_800.0),
            ("year", 63_244_800.0),
        ] {
            let config = json!({"schedule": {"type": "interval", "value": 2, "unit": unit}});
            assert_eq!(
                of(&config, false),
                Ok(json!({"kind": "interval", "seconds": seconds})),
                "{unit}"
            );
        }
    }

    #[test]
    fn thresholds_of_runs_are_those_of_deadbeat_up_to_its_limit() {
        for (given, wanted) in [
            (Value::Null, Some(None)),
            (json!(1), Some(Some(1))),
            (json!(3), Some(Some(3))),
            (json!(720), Some(Some(100))),
            (json!(0), None),
            (json!("3"), None),
        ] {
            let mut config = crontab("0 4 * * *");
            config["failure_issue_threshold"] = given.clone();
            let settings = settings(&config, false, "job", "job", None).ok();
            assert_eq!(
                settings.map(|settings| settings.created.failure_threshold),
                wanted,
                "{given}"
            );
        }
    }

    #[test]
    fn a_check_in_says_what_its_fields_say_and_odd_ones_say_nothing() {
        let id = Uuid::from_u128(7);
        let read_of = |item: Value| read(item.as_object().unwrap());
        let whole = json!({"monitor_slug": "job", "status": "ok", "check_in_id": id.simple().to_string(), "duration": 1.5,
            "environment": "production", "release": "web@1", "contexts": {"trace": {"trace_id": "t"}}});
        let seen = read_of(whole).unwrap();
        assert_eq!(
            (seen.slug.as_str(), seen.kind, seen.run_id),
            ("job", PingKind::Success, Some(id))
        );
        assert_eq!(seen.duration, Some(TimeDelta::milliseconds(1_500)));
        assert_eq!(
            seen.body,
            b"environment: production\nrelease: web@1\ntrace_id: t\n"
        );

        let odd = json!({"monitor_slug": "job", "status": "error", "check_in_id": "0".repeat(32), "duration": -1, "environment": 7,
            "release": [], "contexts": "none", "sdk": [], "monitor_config": []});
        let seen = read_of(odd).unwrap();
        assert_eq!(
            (seen.slug.as_str(), seen.kind, seen.run_id),
            ("job", PingKind::Fail, None)
        );
        assert_eq!((seen.duration, seen.settings), (None, None));

        for refused in [
            json!({}),
            json!({"monitor_slug": "", "status": "ok"}),
            json!({"monitor_slug": 7, "status": "ok"}),
            json!({"monitor_slug": "job"}),
            json!({"monitor_slug": "job", "status": "missed"}),
            json!({"monitor_slug": "job", "status": "OK"}),
        ] {
            assert!(read_of(refused.clone()).is_err(), "{refused}");
        }
    }
}
