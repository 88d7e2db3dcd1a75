//! A monitor: its settings, and the state that its signals have led to.

pub mod alarm;
pub mod baseline;
pub mod deadline;
pub mod flapping;
pub mod order;
pub mod ping;
pub mod run;
pub mod slot;
pub mod status;
pub mod transition;

use chrono::{DateTime, TimeDelta, Utc};

use crate::limits;
use crate::monitor::alarm::{Alarm, Streak, Thresholds};
use crate::monitor::baseline::Baseline;
use crate::monitor::deadline::deadline;
use crate::monitor::flapping::Flaps;
use crate::monitor::run::Run;
use crate::monitor::status::Status;
use crate::schedule::{Schedule, ScheduleError};
use crate::text::{Text, TextError};
use crate::time::span;

/// When reports are expected, and how late they may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// When reports are expected.
    pub schedule: Schedule,
    /// How long after a slot a run may begin at the earliest, in seconds: the countdown with which Beat sends the
    /// entry. 0 without a Beat.
    pub delay_seconds: f64,
    /// Tolerated lateness, in seconds.
    pub grace_seconds: f64,
    /// How long a run may take, in seconds. None: the grace bounds it, as clients of other products expect.
    pub longest_run_seconds: Option<f64>,
}

impl Expectation {
    /// Tolerated lateness.
    #[must_use]
    pub fn grace(&self) -> TimeDelta {
        span(self.grace_seconds)
    }

    /// How long after a slot a run may begin at the earliest.
    #[must_use]
    pub fn delay(&self) -> TimeDelta {
        span(self.delay_seconds)
    }

    /// How long after a slot Deadbeat waits for its report.
    #[must_use]
    pub fn patience(&self) -> TimeDelta {
        self.delay() + self.grace()
    }

    /// How long a run may take.
    #[must_use]
    pub fn longest_run(&self) -> TimeDelta {
        span(self.longest_run_seconds.unwrap_or(self.grace_seconds))
    }
}

/// A monitor as the rules see it.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorState {
    /// Its settings.
    pub expectation: Expectation,
    /// After how many runs its incident opens and ends.
    pub thresholds: Thresholds,
    /// Stored status.
    pub status: Status,
    /// Where its own incident stands beside the status.
    pub alarm: Alarm,
    /// Whether it flaps.
    pub flaps: Flaps,
    /// The bad runs after which the newest step opened the incident. None: it opened none, or after one. Not stored.
    pub raised_after: Option<Streak>,
    /// A Beat registered it. Reports are then known to come, so the monitor is armed before the first one.
    pub by_beat: bool,
    /// Its entry left Beat's schedule. Signals are kept, and no longer change the status.
    pub retired: bool,
    /// Number of pings so far; the next ping gets this number plus one.
    pub ping_count: i64,
    /// When the newest ping of any kind came.
    pub last_ping_at: Option<DateTime<Utc>>,
    /// When the newest success came.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When the newest counted success or failure was received, or a person last paused or resumed the monitor. A
    /// signal that was received before this changes no status.
    pub decided_at: Option<DateTime<Utc>>,
    /// When the newest success or failure without a run id was received. A run without an id that began before this has
    /// ended.
    pub plain_end_at: Option<DateTime<Utc>>,
    /// Length of the newest run that ended.
    pub last_duration: Option<TimeDelta>,
    /// The earliest slot that is not satisfied.
    pub next_due_at: Option<DateTime<Utc>>,
    /// The newest hint of Beat: when the entry is next due. Kept while an earlier slot is still unsatisfied.
    pub hinted_due_at: Option<DateTime<Utc>>,
    /// The slot that Beat put off at a start, because it had forgotten its last sending of the entry. Cleared by the
    /// next report.
    pub postponed_from: Option<DateTime<Utc>>,
    /// When the monitor is declared down. None: it is not armed.
    pub deadline_at: Option<DateTime<Utc>>,
    /// The end of the hold. The monitor's deadline has passed, and until then its verdict waits for that on another
    /// subject, such as its Beat. None: the monitor is not held.
    pub hold_until: Option<DateTime<Utc>>,
    /// Open runs, and overruns that may still end.
    pub runs: Vec<Run>,
    /// How long its runs take. None: not learned yet, or not loaded.
    pub baseline: Option<Baseline>,
}

impl MonitorState {
    /// A monitor without any report, with its next slot. A monitor without a Beat is armed by its first ping, because
    /// before it nobody may be there to report. A monitor that a Beat registered is armed at once.
    #[must_use]
    pub fn fresh(expectation: Expectation, by_beat: bool, now: DateTime<Utc>) -> Self {
        let next_due_at = expectation.schedule.next_after(now);
        let mut state = Self {
            expectation,
            thresholds: Thresholds::default(),
            status: Status::New,
            alarm: Alarm::default(),
            flaps: Flaps::default(),
            raised_after: None,
            by_beat,
            retired: false,
            ping_count: 0,
            last_ping_at: None,
            last_success_at: None,
            decided_at: None,
            plain_end_at: None,
            last_duration: None,
            next_due_at,
            hinted_due_at: None,
            postponed_from: None,
            deadline_at: None,
            hold_until: None,
            runs: Vec::new(),
            baseline: None,
        };
        state.rearm();
        state
    }

    /// The time at which the evaluator judges the monitor: its deadline, or the end of its hold if that is later. None:
    /// it is not armed.
    #[must_use]
    pub fn judged_at(&self) -> Option<DateTime<Utc>> {
        self.deadline_at
            .map(|deadline| self.hold_until.map_or(deadline, |held| held.max(deadline)))
    }

    /// The time at which a sweep claims the monitor: when it is judged, or when flapping may end. Flapping does not end
    /// during a hold, because a slot may have been missed. None: never.
    #[must_use]
    pub fn swept_at(&self) -> Option<DateTime<Utc>> {
        let flapping = self.flaps.flapping.filter(|_| self.hold_until.is_none());
        let calm_at = flapping.map(|flapping| flapping.calm_at);
        [self.judged_at(), calm_at].into_iter().flatten().min()
    }

    /// Whether silence is judged: nobody knows that the monitor is down, or its incident waits for more bad runs.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        match self.status {
            Status::New | Status::Up => true,
            Status::Down => matches!(self.alarm, Alarm::Bad(_)),
            Status::Paused => false,
        }
    }

    /// Computes the deadline again, and ends a hold.
    pub(crate) fn rearm(&mut self) {
        self.deadline_at = deadline(self);
        self.hold_until = None;
    }

    /// Removes the deadline, and ends a hold.
    pub(crate) fn disarm(&mut self) {
        self.deadline_at = None;
        self.hold_until = None;
    }

    /// How long a run may take: the setting, or the learned limit if that is shorter.
    #[must_use]
    pub fn longest_run(&self) -> TimeDelta {
        let set = self.expectation.longest_run();
        let learned = self.baseline.as_ref().and_then(Baseline::longest_run);
        learned.map_or(set, |learned| learned.min(set))
    }

    /// Number of open runs.
    #[must_use]
    pub fn open_runs(&self) -> usize {
        self.runs.iter().filter(|run| run.is_open()).count()
    }
}

/// A fault in a request: which field (a JSON pointer), and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer into the request body.
    pub pointer: String,
    /// The first faulty character of the field's text, counted from 1. None: no single character is at fault.
    pub position: Option<usize>,
    /// The line and column of that character, counted from 1. Only for texts with several lines: templates.
    pub line_and_column: Option<(usize, usize)>,
    /// The faulty value, and what is allowed.
    pub message: String,
}

impl FieldError {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            position: None,
            line_and_column: None,
            message: message.into(),
        }
    }

    /// The fault of a text at `pointer`.
    #[must_use]
    pub fn of_text(pointer: &str, error: &TextError) -> Self {
        Self {
            position: error.position(),
            ..Self::new(pointer, error.to_string())
        }
    }

    /// The fault of a schedule at `pointer`.
    #[must_use]
    pub fn of_schedule(pointer: &str, error: ScheduleError) -> Self {
        Self {
            position: error.position,
            ..Self::new(format!("{pointer}{}", error.field), error.message)
        }
    }
}

/// Checks Celery's name of an application, entry, queue or worker: 1 to `most` characters, by the rules of
/// [`Text::name`].
pub fn check_name(pointer: &str, name: &str, most: usize, faults: &mut Vec<FieldError>) {
    if let Err(error) = Text::name(name, most) {
        faults.push(FieldError::of_text(pointer, &error));
    }
}

/// Reads a name that a person chose: 1 to `most` characters, by the rules of [`Text::label`]. For a faulty text it adds
/// a fault and returns an empty text.
pub fn read_label(pointer: &str, raw: &str, most: usize, faults: &mut Vec<FieldError>) -> String {
    match Text::label(raw, most) {
        Ok(label) => label.into(),
        Err(error) => {
            faults.push(FieldError::of_text(pointer, &error));
            String::new()
        }
    }
}

/// Checks a slug: 1 to 100 of `a-z`, `0-9`, `-`, `_`.
pub fn check_slug(pointer: &str, slug: &str, faults: &mut Vec<FieldError>) {
    if !is_slug(slug) {
        faults.push(FieldError::new(
            pointer,
            format!(
                "is {:?}; 1 to {} of a-z, 0-9, - and _ are allowed",
                clip(slug),
                limits::SLUG_CHARS
            ),
        ));
    }
}

/// True if the text is a slug.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    (1..=limits::SLUG_CHARS).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// Makes a slug from a name: lower case, and each run of other characters becomes one hyphen. `monitor` if nothing is
/// left.
#[must_use]
pub fn slug_from_name(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() || c == '_' {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() >= limits::SLUG_CHARS {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "monitor".to_owned()
    } else {
        slug.to_owned()
    }
}

/// Checks tags: at most 50, each 1 to 100 visible characters without blanks. Normalizes them to NFC and drops
/// repetitions.
pub fn check_tags(pointer: &str, tags: &mut Vec<String>, faults: &mut Vec<FieldError>) {
    if tags.len() > limits::TAG_COUNT {
        faults.push(FieldError::new(
            pointer,
            format!(
                "has {} tags; at most {} are allowed",
                tags.len(),
                limits::TAG_COUNT
            ),
        ));
    }
    for (index, tag) in tags.iter_mut().enumerate() {
        match Text::label(tag, limits::TAG_CHARS) {
            Ok(label) if !label.contains(char::is_whitespace) => *tag = label.into(),
            _ => faults.push(FieldError::new(
                format!("{pointer}/{index}"),
                format!(
                    "is {:?}; 1 to {} visible characters without blanks are allowed",
                    clip(tag),
                    limits::TAG_CHARS
                ),
            )),
        }
    }
    let mut seen = std::collections::HashSet::new();
    tags.retain(|tag| seen.insert(tag.clone()));
}

/// Checks a grace, or a delay: 0 seconds to 366 days.
pub fn check_grace(pointer: &str, seconds: f64, faults: &mut Vec<FieldError>) {
    if !(0.0..=limits::SPAN_SECONDS).contains(&seconds) {
        faults.push(FieldError::new(
            pointer,
            format!("is {seconds}; 0 to {} seconds are allowed", limits::SPAN_SECONDS),
        ));
    }
}

/// Checks a longest run: 1 second to 366 days.
pub fn check_longest_run(pointer: &str, seconds: f64, faults: &mut Vec<FieldError>) {
    if !(1.0..=limits::SPAN_SECONDS).contains(&seconds) {
        faults.push(FieldError::new(
            pointer,
            format!(
                "is {seconds}; 1 to {} seconds are allowed, or null (the grace then bounds a run)",
                limits::SPAN_SECONDS
            ),
        ));
    }
}

/// The beginning of a text, for messages.
#[must_use]
pub fn clip(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(60).chain(['…']).collect()
    }
}
