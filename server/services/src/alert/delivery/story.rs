//! A message as people read it: the subject that stopped, since when, why, and the commands to type, in this order.
//!
//! Kinds of channels that write for people render a [`Story`]: mail as text and HTML. Names and facts come from
//! outside, so here each becomes one printable line. A renderer must escape them for its markup.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::message::{
    BlindNotice, ChannelDisabled, Confirmation, Event, Incident, IncidentEvent, Message, Monitor, Phase,
};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::text::is_plain;
use serde_json::Value;

use super::senders::printable;

const LINE_CHARS: usize = 500;
const COMMAND_CHARS: usize = 2_000;
const LINK_CHARS: usize = 2_000;
const FACTS: usize = 20;

/// The colour of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// A fault began, or goes on.
    Bad,
    /// A fault is over.
    Good,
    /// Any other message.
    Plain,
}

/// The content of a message, before it is text or markup.
#[derive(Debug)]
pub struct Story {
    /// Its colour.
    pub tone: Tone,
    /// The first line.
    pub headline: String,
    /// The event, as a sentence.
    pub summary: Option<String>,
    /// Labels and values.
    pub facts: Vec<(&'static str, String)>,
    /// The steps of the repair.
    pub steps: Vec<Step>,
    /// The evidence, one line a fact.
    pub evidence: Vec<String>,
    /// The first monitors that the incident affects.
    pub members: Vec<String>,
    /// Number of further monitors that the incident affects.
    pub more_members: usize,
    /// The page of the cause: what it means, and how to prevent it.
    pub cause: Option<CausePage>,
    /// The page with more about the message.
    pub link: Option<String>,
    /// The page with a button that acknowledges the incident.
    pub acknowledge: Option<String>,
}

/// The page of a cause.
#[derive(Debug)]
pub struct CausePage {
    /// The code of the cause.
    pub code: String,
    /// The address.
    pub url: String,
}

impl CausePage {
    fn of(incident: &Incident) -> Option<Self> {
        Some(Self {
            code: line(&incident.cause.code)?,
            url: link(incident.cause.url.as_deref()?)?,
        })
    }

    /// The text of the link.
    #[must_use]
    pub fn label(&self) -> String {
        format!("What {} means, and how to prevent it", self.code)
    }
}

/// One step of the repair.
#[derive(Debug)]
pub struct Step {
    /// The step, as a sentence.
    pub text: String,
    /// A command to type.
    pub command: Option<String>,
}

impl Story {
    /// Puts a message into words.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match &message.event {
            Event::Incident(event) if event.phase == Phase::Resolved => Self::resolved(&event.incident),
            Event::Incident(event) => Self::trouble(event, message.at),
            Event::Test => Self::plain(
                "Test: this channel works".to_owned(),
                "Somebody requested this test in Deadbeat. Alerts to this channel arrive.".to_owned(),
            ),
            Event::ChannelDisabled(disabled) => Self::channel_disabled(disabled),
            Event::BlindSpell(notice) => Self::blind_notice(notice),
            Event::Confirmation(question) => Self::confirmation(question),
            Event::Unread(stored) => Self::unread(message.alert(), stored),
        }
    }

    /// The heading over the members.
    #[must_use]
    pub fn members_title(&self) -> String {
        match self.members.len() + self.more_members {
            1 => "1 monitor is affected".to_owned(),
            count => format!("{count} monitors are affected"),
        }
    }

    /// A message without colour: a headline and a sentence.
    pub(crate) fn plain(headline: String, summary: String) -> Self {
        Self {
            tone: Tone::Plain,
            headline,
            summary: Some(summary).filter(|summary| !summary.is_empty()),
            facts: Vec::new(),
            steps: Vec::new(),
            evidence: Vec::new(),
            members: Vec::new(),
            more_members: 0,
            cause: None,
            link: None,
            acknowledge: None,
        }
    }

    fn blind_notice(notice: &BlindNotice) -> Self {
        let mut story = Self::plain(
            "Deadbeat could not listen for a while".to_owned(),
            line(&notice.summary).unwrap_or_default(),
        );
        story.add_fact("Project", line(&notice.project.name));
        story.steps.push(Step {
            text: "Check the runs that were due in that time: Deadbeat cannot know whether they happened."
                .to_owned(),
            command: None,
        });
        story
    }

    /// The question to the owner of a mail address. It holds no text that a project's members chose: it goes to people
    /// who may not know them.
    fn confirmation(question: &Confirmation) -> Self {
        let site = link(&question.site).unwrap_or_default();
        let mut story = Self::plain(
            "May Deadbeat send alerts to this address?".to_owned(),
            format!(
                "Somebody wants the alerts of the Deadbeat server {site} sent to this address. Nothing more is sent unless you agree. \
                 If you do not know what this is about, ignore this mail."
            ),
        );
        story.steps.push(Step {
            text: "If you agree, open the link below within a week and press the button there.".to_owned(),
            command: None,
        });
        story.link = link(&question.url);
        story
    }

    fn channel_disabled(disabled: &ChannelDisabled) -> Self {
        let name = line(&disabled.channel.name).unwrap_or_else(|| "a channel".to_owned());
        let (why, step) = if disabled.unsubscribed {
            (
                "because the owner of the mail address unsubscribed",
                "If others need these alerts, add a channel for them. Only the owner of the address can allow mails again: POST \
                 …/confirmation of the channel asks.",
            )
        } else {
            (
                "because it failed in a way that no retry can repair",
                "Correct the channel's settings: after a change, Deadbeat uses the channel again.",
            )
        };
        let mut story = Self::plain(
            format!("Channel switched off: {name}"),
            format!("Alerts no longer go to {name}, {why}."),
        );
        story.tone = Tone::Bad;
        story.add_fact(
            "Reason",
            line(&disabled.reason).filter(|_| !disabled.unsubscribed),
        );
        story.add_fact("Kind", line(&disabled.channel.kind));
        story.add_fact("Project", line(&disabled.project.name));
        story.steps.push(Step {
            text: step.to_owned(),
            command: None,
        });
        story
    }

    fn trouble(event: &IncidentEvent, at: DateTime<Utc>) -> Self {
        let incident = &event.incident;
        let days = format!("DOWN FOR {} DAYS", (at - incident.opened_at).num_days());
        let word = match event.phase {
            Phase::Opened | Phase::Resolved if incident.flapping => "FLAPPING",
            Phase::Reminder if incident.flapping => "STILL FLAPPING",
            Phase::Escalated if incident.flapping => "FLAPPING, NOT ACKNOWLEDGED",
            Phase::Opened | Phase::Resolved => "DOWN",
            Phase::Reminder => "STILL DOWN",
            Phase::Acknowledged => "ACKNOWLEDGED",
            Phase::Escalated => "DOWN, NOT ACKNOWLEDGED",
            Phase::LongDown => &days,
        };
        let name = subject_name(incident);
        let headline = match line(&incident.cause.code) {
            Some(cause) => format!("{word}: {name} ({cause})"),
            None => format!("{word}: {name}"),
        };
        let mut story = Self::plain(headline, line(&incident.cause.summary).unwrap_or_default());
        story.tone = Tone::Bad;
        let opened = incident.opened_at;
        story.add_fact(
            if incident.flapping {
                "Open since"
            } else {
                "Down since"
            },
            Some(if at - opened >= TimeDelta::minutes(1) {
                format!("{} ({})", clock(opened), span(at - opened))
            } else {
                clock(opened)
            }),
        );
        if let Some(monitor) = &event.monitor {
            story.add_monitor(monitor);
        }
        let acknowledged =
            incident
                .acknowledged_at
                .map(|at| match incident.acknowledged_by.as_deref().and_then(line) {
                    Some(by) => format!("{} by {by}", clock(at)),
                    None => clock(at),
                });
        story.add_fact("Acknowledged", acknowledged);
        story.add_fact("Project", line(&incident.project.name));
        let step = |repair: &deadbeat_domain::incident::Repair| {
            Some(Step {
                text: line(&repair.text)?,
                command: repair
                    .command
                    .as_ref()
                    .and_then(|command| self::command(command.as_str())),
            })
        };
        story.steps = incident.repair.iter().filter_map(step).collect();
        story.evidence = incident
            .evidence
            .iter()
            .filter_map(|fact| {
                let text = line(&fact.fact)?;
                Some(match fact.at {
                    Some(at) => format!("{}: {text}", clock(at)),
                    None => text,
                })
            })
            .take(FACTS)
            .collect();
        story.add_members(incident);
        story.cause = CausePage::of(incident);
        story.link = link(&incident.url);
        story.acknowledge = incident.acknowledge_url.as_deref().and_then(link);
        story
    }

    fn resolved(incident: &Incident) -> Self {
        let name = subject_name(incident);
        let headline = match incident.resolved_at {
            Some(resolved) => format!("RESOLVED: {name} after {}", span(resolved - incident.opened_at)),
            None => format!("RESOLVED: {name}"),
        };
        let well = if incident.flapping {
            format!("{name} has recovered, and no longer flaps.")
        } else {
            format!("{name} has recovered.")
        };
        let mut story = Self::plain(headline, well);
        story.tone = Tone::Good;
        story.add_fact(
            if incident.flapping {
                "Open from"
            } else {
                "Down from"
            },
            Some(clock(incident.opened_at)),
        );
        story.add_fact("Until", incident.resolved_at.map(clock));
        let was = match (line(&incident.cause.code), line(&incident.cause.summary)) {
            (Some(code), Some(summary)) => Some(format!("{code}: {summary}")),
            (code, summary) => code.or(summary),
        };
        story.add_fact("Cause", was);
        story.add_fact("Project", line(&incident.project.name));
        story.add_members(incident);
        story.cause = CausePage::of(incident);
        story.link = link(&incident.url);
        story
    }

    /// Shows the readable parts of a stored message of a later version, or with missing fields.
    fn unread(alert: Alert, stored: &Value) -> Self {
        let text = |pointer| stored.pointer(pointer).and_then(Value::as_str).and_then(line);
        let name = text("/incident/subject/name")
            .or_else(|| text("/monitor/name"))
            .unwrap_or_else(|| "a monitor".to_owned());
        let (word, tone) = match alert {
            Alert::Resolved => ("RESOLVED", Tone::Good),
            Alert::Reminder => ("STILL DOWN", Tone::Bad),
            _ => ("DOWN", Tone::Bad),
        };
        let headline = match text("/incident/cause/code") {
            Some(code) => format!("{word}: {name} ({code})"),
            None => format!("{word}: {name}"),
        };
        let mut story = Self::plain(headline, text("/incident/cause/summary").unwrap_or_default());
        story.tone = tone;
        story
            .evidence
            .push("This server cannot read all of this alert. Perhaps a later version wrote it.".to_owned());
        story
    }

    fn add_fact(&mut self, label: &'static str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.facts.push((label, value));
        }
    }

    fn add_monitor(&mut self, monitor: &Monitor) {
        let last_report = monitor.last_ping_at.map_or_else(|| "never".to_owned(), clock);
        self.add_fact("Last report", Some(last_report));
        let length = |seconds: f64| {
            Some(deadbeat_domain::time::span(seconds))
                .filter(|length| *length > TimeDelta::zero())
                .map(span)
        };
        let expected = line(&monitor.schedule_summary).map(|mut expected| {
            if let Some(delay) = length(monitor.delay_seconds) {
                expected.push_str(&format!(", a countdown of {delay}"));
            }
            if let Some(grace) = length(monitor.grace_seconds) {
                expected.push_str(&format!(", {grace} of grace"));
            }
            expected
        });
        self.add_fact("Expected", expected);
        self.add_fact("Tags", Some(printable(&monitor.tags.join(", "), LINE_CHARS)));
    }

    fn add_members(&mut self, incident: &Incident) {
        self.members = incident
            .members
            .iter()
            .filter_map(|member| line(&member.name))
            .collect();
        let count = usize::try_from(incident.member_count).unwrap_or_default();
        self.more_members = count.saturating_sub(self.members.len());
    }
}

/// The name of the incident's subject.
fn subject_name(incident: &Incident) -> String {
    match (incident.subject.kind, line(&incident.subject.name)) {
        (SubjectKind::Beat, Some(name)) => format!("Celery Beat {name}"),
        (SubjectKind::Beat, None) => "Celery Beat".to_owned(),
        (_, Some(name)) => name,
        (_, None) => "a monitor".to_owned(),
    }
}

/// Returns a text as one printable line. None: it has no printable character.
fn line(text: &str) -> Option<String> {
    let text = printable(text, LINE_CHARS);
    (!text.is_empty()).then_some(text)
}

/// Returns a command that is safe to paste. None: an older version stored it without checking its names, or it is too
/// long to read.
fn command(text: &str) -> Option<String> {
    let is_shown = !text.is_empty() && is_plain(text) && text.chars().count() <= COMMAND_CHARS;
    is_shown.then(|| text.to_owned())
}

fn link(text: &str) -> Option<String> {
    // A link that is too long is left out: if it were cut, it would lead nowhere.
    let url = printable(text, LINK_CHARS);
    (url.starts_with("https://") || url.starts_with("http://")).then_some(url)
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Formats a duration in its two largest units.
fn span(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds().max(0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units
        .iter()
        .position(|(size, _)| seconds >= *size)
        .unwrap_or(units.len() - 1);
    let (size, unit) = units[first];
    let mut words = format!("{} {unit}", seconds / size);
    if let Some((smaller, unit)) = units.get(first + 1) {
        let rest = seconds % size / smaller;
        if rest > 0 {
            words.push_str(&format!(" {rest} {unit}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_was_unsubscribed_is_not_called_broken() {
        let mut message = crate::alert::outbox::samples::disabled();
        let Event::ChannelDisabled(disabled) = &mut message.event else {
            panic!("{message:?}")
        };
        disabled.unsubscribed = true;

        let story = Story::of(&message);

        let summary = story.summary.unwrap();
        assert!(
            summary.contains("unsubscribed") && !summary.contains("failed"),
            "{summary}"
        );
        assert!(
            story.steps[0].text.contains("Only the owner"),
            "{:?}",
            story.steps
        );
    }

    #[test]
    fn durations_are_reported_in_their_two_largest_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (65, "1 min 5 s"),
            (300, "5 min"),
            (7_500, "2 h 5 min"),
            (86_400, "1 d"),
            (273_600, "3 d 4 h"),
            (-5, "0 s"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), words);
        }
    }

    #[test]
    fn durations_are_reported_as_the_sdks_audit_shows_them() {
        let rules: Value = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/shared-rules.json"
        )))
        .unwrap();
        for case in rules["spans"].as_array().unwrap() {
            let seconds = case["seconds"].as_i64().unwrap();
            assert_eq!(span(TimeDelta::seconds(seconds)), case["words"].as_str().unwrap());
        }
    }
}
