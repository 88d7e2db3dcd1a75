//! An alert as a mail: subject, text and HTML from the payload that webhooks carry.
//!
//! It is read in the middle of the night: what stopped, since when, why, what to type, in this order and nothing before it. The
//! payload becomes a `Story` once; text and HTML are two ways to print the same one. What is missing is left out: an alert with a
//! gap is worth more than none. Names and facts come from outside, so they are made one printable line here and escaped in HTML.

use std::fmt::Write;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::text::is_plain;
use serde_json::Value;

use super::senders::printable;
use crate::confirmation;

const SUBJECT_CHARS: usize = 150;
const LINE_CHARS: usize = 500;
const COMMAND_CHARS: usize = 2_000;
const FACTS: usize = 20;

/// A mail's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// One printable line.
    pub subject: String,
    /// For readers without HTML.
    pub text: String,
    /// A whole document that loads nothing.
    pub html: String,
}

/// Renders a payload.
#[must_use]
pub fn render(payload: &Value) -> Mail {
    let story = Story::of(payload);
    Mail {
        subject: printable(&format!("[Deadbeat] {}", story.subject), SUBJECT_CHARS),
        text: text(&story),
        html: html(&story),
    }
}

/// The incident's id, where it is one: it goes into a header.
pub(crate) fn incident_id(payload: &Value) -> Option<uuid::Uuid> {
    payload.pointer("/incident/id")?.as_str()?.parse().ok()
}

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Bad,
    Good,
    Plain,
}

/// What a mail tells, before it is text or HTML.
#[derive(Debug)]
struct Story {
    tone: Tone,
    subject: String,
    headline: String,
    summary: Option<String>,
    facts: Vec<(&'static str, String)>,
    steps: Vec<Step>,
    evidence: Vec<String>,
    members: Vec<String>,
    more_members: usize,
    /// The page of its cause: what it means, and how to prevent it.
    cause: Option<Cause>,
    link: Option<String>,
}

#[derive(Debug)]
struct Cause {
    code: String,
    url: String,
}

#[derive(Debug)]
struct Step {
    text: String,
    /// A line to type.
    command: Option<String>,
}

impl Story {
    fn of(payload: &Value) -> Self {
        match payload["type"].as_str() {
            Some("channel.test") => Self::plain(
                "Test: this channel works".to_owned(),
                "This is a test that was asked for in Deadbeat. Alerts to this channel arrive.".to_owned(),
            ),
            Some("blind_spell.notice") => Self::blind_notice(payload),
            Some("channel.disabled") => Self::channel_disabled(payload),
            Some(confirmation::EVENT) => Self::confirmation(payload),
            Some("incident.resolved") => Self::resolved(payload),
            Some("incident.reminder") => Self::trouble(payload, "STILL DOWN"),
            _ => Self::trouble(payload, "DOWN"),
        }
    }

    fn plain(headline: String, summary: String) -> Self {
        Self {
            tone: Tone::Plain,
            subject: headline.clone(),
            headline,
            summary: Some(summary),
            facts: Vec::new(),
            steps: Vec::new(),
            evidence: Vec::new(),
            members: Vec::new(),
            more_members: 0,
            cause: None,
            link: None,
        }
    }

    fn blind_notice(payload: &Value) -> Self {
        let mut story = Self::plain(
            "Deadbeat could not listen for a while".to_owned(),
            line(payload, "/summary").unwrap_or_default(),
        );
        story.add_fact("Project", line(payload, "/project/name"));
        story.steps.push(Step {
            text: "Look after what should have run in that time: Deadbeat cannot tell whether it did."
                .to_owned(),
            command: None,
        });
        story
    }

    /// Nothing that a project's members chose stands in it: it goes to people who may not know them.
    fn confirmation(payload: &Value) -> Self {
        let site = link(payload, "/site").unwrap_or_default();
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
        story.link = link(payload, "/url");
        story
    }

    fn channel_disabled(payload: &Value) -> Self {
        let name = line(payload, "/channel/name").unwrap_or_else(|| "a channel".to_owned());
        let mut story = Self::plain(
            format!("Channel switched off: {name}"),
            format!(
                "Alerts no longer go to {name}, because it failed in a way that trying again does not repair."
            ),
        );
        story.tone = Tone::Bad;
        story.add_fact("Reason", line(payload, "/reason"));
        story.add_fact("Kind", line(payload, "/channel/kind"));
        story.add_fact("Project", line(payload, "/project/name"));
        story.steps.push(Step {
            text: "Correct the channel's settings: a channel that was changed is used again.".to_owned(),
            command: None,
        });
        story
    }

    fn trouble(payload: &Value, word: &str) -> Self {
        let name = subject_name(payload);
        let cause = line(payload, "/incident/cause/code");
        let headline = match &cause {
            Some(cause) => format!("{word}: {name} ({cause})"),
            None => format!("{word}: {name}"),
        };
        let mut story = Self::plain(headline, String::new());
        story.tone = Tone::Bad;
        story.summary = line(payload, "/incident/cause/summary");
        let since =
            instant(payload, "/incident/opened_at").map(|opened| match instant(payload, "/timestamp") {
                Some(told) if told - opened >= TimeDelta::minutes(1) => {
                    format!("{} ({})", clock(opened), span(told - opened))
                }
                _ => clock(opened),
            });
        story.add_fact("Down since", since);
        story.add_monitor(payload);
        story.add_fact(
            "Acknowledged",
            instant(payload, "/incident/acknowledged_at").map(clock),
        );
        story.add_fact("Project", line(payload, "/incident/project/name"));
        story.steps = list(payload, "/incident/repair")
            .filter_map(|step| {
                Some(Step {
                    text: line(step, "/text")?,
                    command: step["command"].as_str().and_then(command),
                })
            })
            .collect();
        story.evidence = list(payload, "/incident/evidence")
            .filter_map(|fact| {
                let text = line(fact, "/fact")?;
                Some(instant(fact, "/at").map_or_else(|| text.clone(), |at| format!("{}: {text}", clock(at))))
            })
            .take(FACTS)
            .collect();
        story.add_members(payload);
        story.cause = Cause::of(payload);
        story.link = link(payload, "/incident/url");
        story
    }

    fn resolved(payload: &Value) -> Self {
        let name = subject_name(payload);
        let opened = instant(payload, "/incident/opened_at");
        let resolved = instant(payload, "/incident/resolved_at");
        let lasted = opened
            .zip(resolved)
            .map(|(opened, resolved)| span(resolved - opened));
        let headline = match &lasted {
            Some(lasted) => format!("RESOLVED: {name} after {lasted}"),
            None => format!("RESOLVED: {name}"),
        };
        let mut story = Self::plain(headline, format!("{name} is well again."));
        story.tone = Tone::Good;
        story.add_fact("Down from", opened.map(clock));
        story.add_fact("Until", resolved.map(clock));
        let was = match (
            line(payload, "/incident/cause/code"),
            line(payload, "/incident/cause/summary"),
        ) {
            (Some(code), Some(summary)) => Some(format!("{code}: {summary}")),
            (code, summary) => code.or(summary),
        };
        story.add_fact("It was", was);
        story.add_fact("Project", line(payload, "/incident/project/name"));
        story.add_members(payload);
        story.cause = Cause::of(payload);
        story.link = link(payload, "/incident/url");
        story
    }

    fn add_fact(&mut self, label: &'static str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.facts.push((label, value));
        }
    }

    fn add_monitor(&mut self, payload: &Value) {
        if !payload["monitor"].is_object() {
            return;
        }
        let heard = instant(payload, "/monitor/last_ping_at").map_or_else(|| "never".to_owned(), clock);
        self.add_fact("Last heard from", Some(heard));
        let seconds = |pointer| payload.pointer(pointer).and_then(Value::as_f64);
        let length = |pointer| {
            seconds(pointer)
                .map(deadbeat_domain::time::span)
                .filter(|length| *length > TimeDelta::zero())
                .map(span)
        };
        let expected = line(payload, "/monitor/schedule_summary").map(|mut expected| {
            if let Some(delay) = length("/monitor/delay_seconds") {
                expected.push_str(&format!(", a countdown of {delay}"));
            }
            if let Some(grace) = length("/monitor/grace_seconds") {
                expected.push_str(&format!(", {grace} of grace"));
            }
            expected
        });
        self.add_fact("Expected", expected);
        let tags: Vec<&str> = list(payload, "/monitor/tags").filter_map(Value::as_str).collect();
        self.add_fact("Tags", Some(printable(&tags.join(", "), LINE_CHARS)));
    }

    fn add_members(&mut self, payload: &Value) {
        self.members = list(payload, "/incident/members")
            .filter_map(|member| line(member, "/name"))
            .collect();
        let count = payload
            .pointer("/incident/member_count")
            .and_then(Value::as_u64)
            .and_then(|count| usize::try_from(count).ok());
        self.more_members = count.unwrap_or_default().saturating_sub(self.members.len());
    }
}

impl Cause {
    fn of(payload: &Value) -> Option<Self> {
        Some(Self {
            code: line(payload, "/incident/cause/code")?,
            url: link(payload, "/incident/cause/url")?,
        })
    }

    fn label(&self) -> String {
        format!("What {} means, and how to prevent it", self.code)
    }
}

/// Whom it is about, as it is called.
fn subject_name(payload: &Value) -> String {
    let name = line(payload, "/incident/subject/name").or_else(|| line(payload, "/monitor/name"));
    match (
        payload.pointer("/incident/subject/kind").and_then(Value::as_str),
        name,
    ) {
        (Some("beat"), Some(name)) => format!("Celery Beat {name}"),
        (Some("beat"), None) => "Celery Beat".to_owned(),
        (_, Some(name)) => name,
        (_, None) => "a monitor".to_owned(),
    }
}

/// A field as one printable line; None where there is nothing to print.
fn line(value: &Value, pointer: &str) -> Option<String> {
    let text = printable(value.pointer(pointer)?.as_str()?, LINE_CHARS);
    (!text.is_empty()).then_some(text)
}

/// A command as it is to be pasted. None: an older version queued it and did not check its names, or it is too long to be read in a mail.
fn command(text: &str) -> Option<String> {
    let is_shown = !text.is_empty() && is_plain(text) && text.chars().count() <= COMMAND_CHARS;
    is_shown.then(|| text.to_owned())
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn instant(value: &Value, pointer: &str) -> Option<DateTime<Utc>> {
    value.pointer(pointer)?.as_str()?.parse().ok()
}

fn link(payload: &Value, pointer: &str) -> Option<String> {
    let url = line(payload, pointer)?;
    (url.starts_with("https://") || url.starts_with("http://")).then_some(url)
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A duration in its two largest units.
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
            let _ = write!(words, " {rest} {unit}"); // A String takes every write.
        }
    }
    words
}

fn text(story: &Story) -> String {
    let mut out = format!("{}\n", story.headline);
    let mut push = |block: String| {
        out.push('\n');
        out.push_str(&block);
    };
    if let Some(summary) = &story.summary {
        push(format!("{summary}\n"));
    }
    if !story.facts.is_empty() {
        let width = story
            .facts
            .iter()
            .map(|(label, _)| label.len())
            .max()
            .unwrap_or_default()
            + 1;
        push(
            story
                .facts
                .iter()
                .map(|(label, value)| format!("{:width$} {value}\n", format!("{label}:")))
                .collect(),
        );
    }
    if !story.steps.is_empty() {
        let steps = story.steps.iter().enumerate().map(|(index, step)| {
            let command: String = step
                .command
                .iter()
                .map(|line| format!("\n       {line}\n"))
                .collect();
            format!("{}. {}\n{command}", index + 1, step.text)
        });
        push(format!("What to do:\n{}", steps.collect::<String>()));
    }
    if !story.evidence.is_empty() {
        push(format!(
            "What is known:\n{}",
            story
                .evidence
                .iter()
                .map(|fact| format!("- {fact}\n"))
                .collect::<String>()
        ));
    }
    if !story.members.is_empty() {
        push(format!(
            "{}:\n{}",
            members_title(story),
            story
                .members
                .iter()
                .map(|name| format!("- {name}\n"))
                .collect::<String>()
        ));
        if story.more_members > 0 {
            push(format!("and {} more\n", story.more_members));
        }
    }
    if let Some(cause) = &story.cause {
        push(format!("{}:\n{}\n", cause.label(), cause.url));
    }
    if let Some(link) = &story.link {
        push(format!("{link}\n"));
    }
    out.push_str("\n-- \nDeadbeat, the dead man's switch for Celery\n");
    out
}

fn members_title(story: &Story) -> String {
    match story.members.len() + story.more_members {
        1 => "1 monitor is affected".to_owned(),
        count => format!("{count} monitors are affected"),
    }
}

/// Colours for light and dark readers; a reader that drops the style still shows everything in order.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;padding:24px;background:#fff;color:#1c1e21;font:15px/1.5 system-ui,sans-serif}\
main{max-width:600px;margin:0 auto}\
h1{font-size:20px;line-height:1.3;margin:0 0 12px;padding-left:12px;border-left:6px solid #6b7280}\
h1.bad{border-color:#c2261c}h1.good{border-color:#1a7f37}\
h2{font-size:15px;margin:24px 0 8px}\
table{border-collapse:collapse}th{font-weight:400;text-align:left;vertical-align:top;padding:2px 16px 2px 0;color:#5b6370;white-space:nowrap}\
td{padding:2px 0}\
pre{margin:6px 0 12px;padding:10px 12px;background:#f1f3f5;border-radius:6px;white-space:pre-wrap;word-break:break-word;\
font:13px/1.5 ui-monospace,monospace}\
ol,ul{margin:0;padding-left:24px}a{color:#0b57d0}footer{margin-top:32px;color:#5b6370;font-size:13px}\
@media (prefers-color-scheme:dark){\
body{background:#16181c;color:#e6e8eb}th,footer{color:#9aa3af}pre{background:#24272d}a{color:#8ab4f8}\
h1.bad{border-color:#ff6b5e}h1.good{border-color:#3fb950}}";

fn html(story: &Story) -> String {
    let class = match story.tone {
        Tone::Bad => "bad",
        Tone::Good => "good",
        Tone::Plain => "plain",
    };
    let headline = escape(&story.headline);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"supported-color-schemes\" content=\"light dark\">\n<title>{headline}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1 class=\"{class}\">{headline}</h1>\n"
    );
    if let Some(summary) = &story.summary {
        out.push_str(&format!("<p>{}</p>\n", escape(summary)));
    }
    if !story.facts.is_empty() {
        let rows = story
            .facts
            .iter()
            .map(|(label, value)| format!("<tr><th>{label}</th><td>{}</td></tr>\n", escape(value)));
        out.push_str(&format!("<table>\n{}</table>\n", rows.collect::<String>()));
    }
    if !story.steps.is_empty() {
        let steps = story.steps.iter().map(|step| {
            let command = step
                .command
                .as_deref()
                .map(|command| format!("<pre>{}</pre>", escape(command)));
            format!("<li>{}{}</li>\n", escape(&step.text), command.unwrap_or_default())
        });
        out.push_str(&format!(
            "<h2>What to do</h2>\n<ol>\n{}</ol>\n",
            steps.collect::<String>()
        ));
    }
    let items = |items: &[String]| {
        items
            .iter()
            .map(|item| format!("<li>{}</li>\n", escape(item)))
            .collect::<String>()
    };
    if !story.evidence.is_empty() {
        out.push_str(&format!(
            "<h2>What is known</h2>\n<ul>\n{}</ul>\n",
            items(&story.evidence)
        ));
    }
    if !story.members.is_empty() {
        out.push_str(&format!(
            "<h2>{}</h2>\n<ul>\n{}</ul>\n",
            members_title(story),
            items(&story.members)
        ));
        if story.more_members > 0 {
            out.push_str(&format!("<p>and {} more</p>\n", story.more_members));
        }
    }
    if let Some(cause) = &story.cause {
        out.push_str(&format!(
            "<p><a href=\"{}\">{}</a></p>\n",
            escape(&cause.url),
            escape(&cause.label())
        ));
    }
    if let Some(link) = &story.link {
        let link = escape(link);
        out.push_str(&format!("<p><a href=\"{link}\">{link}</a></p>\n"));
    }
    out.push_str("<footer>Deadbeat, the dead man's switch for Celery</footer>\n</main>\n</body>\n</html>\n");
    out
}

/// Makes a text safe between tags and inside quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
