//! Renders a message as a mail: subject, text and HTML. Text and HTML show the same [`Story`].

use deadbeat_domain::alert::message::Message;

use crate::alert::delivery::senders::printable;
use crate::alert::delivery::story::{Story, Tone};

const SUBJECT_CHARS: usize = 150;

/// A mail's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// One printable line.
    pub subject: String,
    /// The text for mail readers without HTML.
    pub text: String,
    /// A complete document that loads nothing.
    pub html: String,
}

/// Renders a message.
#[must_use]
pub fn render(message: &Message) -> Mail {
    render_with(message, None)
}

/// Renders a message with a link that ends further mails.
#[must_use]
pub fn render_with(message: &Message, unsubscribe: Option<&str>) -> Mail {
    let story = Story::of(message);
    Mail {
        subject: printable(&format!("[Deadbeat] {}", story.headline), SUBJECT_CHARS),
        text: text(&story, unsubscribe),
        html: html(&story, unsubscribe),
    }
}

/// Renders a mail to a person about something else than an incident.
pub(crate) fn render_story(story: &Story) -> Mail {
    Mail {
        subject: printable(&format!("[Deadbeat] {}", story.headline), SUBJECT_CHARS),
        text: text(story, None),
        html: html(story, None),
    }
}

/// The words of the link that ends further mails.
const UNSUBSCRIBE: &str = "No more mails to this address";

/// The text of a message for readers without HTML.
#[must_use]
pub fn text(story: &Story, unsubscribe: Option<&str>) -> String {
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
            story.members_title(),
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
    if let Some(link) = &story.acknowledge {
        push(format!("Acknowledge:\n{link}\n"));
    }
    if let Some(link) = &story.link {
        push(format!("{link}\n"));
    }
    out.push_str("\n-- \nDeadbeat, the dead man's switch for Celery\n");
    if let Some(link) = unsubscribe {
        out.push_str(&format!("{UNSUBSCRIBE}: {link}\n"));
    }
    out
}

/// Colours for light and dark mail readers. A mail reader that ignores the style still shows everything in order.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;padding:24px;background:#fff;color:#1c1e21;font:15px/1.5 system-ui,sans-serif}\
main{max-width:600px;margin:0 auto;overflow-wrap:anywhere}\
h1{font-size:20px;line-height:1.3;margin:0 0 12px;padding-left:12px;border-left:6px solid #6b7280}\
h1.bad{border-color:#c2261c}h1.good{border-color:#1a7f37}\
h2{font-size:15px;margin:24px 0 8px}\
table{border-collapse:collapse}th{font-weight:400;text-align:left;vertical-align:top;padding:2px 16px 2px 0;color:#5b6370;white-space:nowrap}\
td{padding:2px 0}\
pre{margin:6px 0 12px;padding:10px 12px;background:#f1f3f5;border-radius:6px;white-space:pre-wrap;word-break:break-word;\
font:13px/1.5 ui-monospace,monospace}\
ol,ul{margin:0;padding-left:24px}a{color:#0b57d0}\
a.button{display:inline-block;padding:8px 16px;border-radius:6px;background:#0b57d0;color:#fff;text-decoration:none}footer{margin-top:32px;color:#5b6370;font-size:13px}\
@media (prefers-color-scheme:dark){\
body{background:#16181c;color:#e6e8eb}th,footer{color:#9aa3af}pre{background:#24272d}a{color:#8ab4f8}a.button{background:#8ab4f8;color:#16181c}\
h1.bad{border-color:#ff6b5e}h1.good{border-color:#3fb950}}";

fn html(story: &Story, unsubscribe: Option<&str>) -> String {
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
            story.members_title(),
            items(&story.members)
        ));
        if story.more_members > 0 {
            out.push_str(&format!("<p>and {} more</p>\n", story.more_members));
        }
    }
    if let Some(link) = &story.acknowledge {
        out.push_str(&format!(
            "<p><a class=\"button\" href=\"{}\">Acknowledge</a></p>\n",
            escape(link)
        ));
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
    out.push_str("<footer>Deadbeat, the dead man's switch for Celery");
    if let Some(link) = unsubscribe {
        out.push_str(&format!("<br>\n<a href=\"{}\">{UNSUBSCRIBE}</a>", escape(link)));
    }
    out.push_str("</footer>\n</main>\n</body>\n</html>\n");
    out
}

/// Makes a text safe between tags and inside quoted attributes, in HTML and XML.
pub(crate) fn escape(text: &str) -> String {
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
