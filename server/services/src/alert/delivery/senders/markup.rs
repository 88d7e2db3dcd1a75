//! Renders a story as one text, in the markup of a service and within its length limit.
//!
//! Names and facts come from outside, so a [`Markup`] escapes each of them: no text of a project can mention people,
//! add links, or end a block of code. The text is cut between lines and words, and never inside markup. If the text
//! is too long, the least important parts are cut first. The order of importance is: headline, links, repair, facts,
//! evidence, members.

use crate::alert::delivery::story::Story;

/// Marks a place where text was cut.
const MORE: &str = "…";

/// The markup of a service.
pub(super) trait Markup: Sync {
    /// Escapes a text from outside, so that the service makes no mention, link or emphasis of it.
    fn escape(&self, text: &str) -> String;
    /// Emphasises an escaped text.
    fn bold(&self, escaped: &str) -> String;
    /// Formats a command as a block or span of code, ready to copy. None: the service cannot show this command
    /// unchanged.
    fn code(&self, command: &str) -> Option<String>;
    /// Formats a link. The address begins with http:// or https:// and is one printable line.
    fn link(&self, label: &str, url: &str) -> String;
    /// Returns the length of a rendered text as the service counts it.
    fn length(&self, text: &str) -> usize {
        text.chars().count()
    }
}

/// The parts of a story that a text has. A service with a separate field for the title leaves the headline out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// All parts.
    All,
    /// All parts but the headline: the summary comes first.
    WithoutHeadline,
}

/// A part of the text.
struct Section {
    /// Sections with a smaller number are kept first.
    rank: u8,
    heading: Option<String>,
    lines: Vec<String>,
}

/// Renders a story within `limit`, as the markup counts lengths. The text is never empty.
pub(super) fn render(story: &Story, markup: &dyn Markup, content: Content, limit: usize) -> String {
    let first = first_line(story, markup, content, limit);
    let mut rest = limit.saturating_sub(markup.length(&first));
    let sections = sections(story, markup);
    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|&index| sections[index].rank);
    let mut kept: Vec<Option<String>> = vec![None; sections.len()];
    for index in order {
        if let Some(text) = fit(&sections[index], markup, rest) {
            rest -= markup.length(&text);
            kept[index] = Some(text);
        }
    }
    kept.into_iter()
        .flatten()
        .fold(first, |text, section| text + &section)
}

/// Renders the headline and the summary, which every reader sees.
fn first_line(story: &Story, markup: &dyn Markup, content: Content, limit: usize) -> String {
    let write = |headline: &str, summary: &str| match (content, headline, summary) {
        (Content::All, headline, "") => markup.bold(&markup.escape(headline)),
        (Content::All, headline, summary) => {
            format!(
                "{}\n{}",
                markup.bold(&markup.escape(headline)),
                markup.escape(summary)
            )
        }
        (Content::WithoutHeadline, headline, "") => markup.escape(headline),
        (Content::WithoutHeadline, _, summary) => markup.escape(summary),
    };
    let (headline, summary) = (
        story.headline.as_str(),
        story.summary.as_deref().unwrap_or_default(),
    );
    let whole = write(headline, summary);
    if markup.length(&whole) <= limit {
        return whole;
    }
    // Escapes lengthen a text, so try shorter and shorter texts until one fits.
    for most in (1..=summary.chars().count()).rev().chain([0]) {
        let text = write(headline, &cut(summary, most));
        if markup.length(&text) <= limit {
            return text;
        }
    }
    for most in (1..=headline.chars().count()).rev() {
        let text = write(&cut(headline, most), "");
        if markup.length(&text) <= limit {
            return text;
        }
    }
    MORE.to_owned()
}

fn sections(story: &Story, markup: &dyn Markup) -> Vec<Section> {
    let facts = story
        .facts
        .iter()
        .map(|(label, value)| format!("{}: {}", markup.escape(label), markup.escape(value)));
    let steps = story.steps.iter().enumerate().flat_map(|(index, step)| {
        let text = format!("{}. {}", index + 1, markup.escape(&step.text));
        let command = step.command.as_deref().map(|command| {
            markup
                .code(command)
                .unwrap_or_else(|| markup.escape("(the command is on the page of the incident)"))
        });
        [Some(text), command].into_iter().flatten()
    });
    let bullets = |texts: &[String]| {
        texts
            .iter()
            .map(|text| format!("• {}", markup.escape(text)))
            .collect::<Vec<_>>()
    };
    let mut members = bullets(&story.members);
    if story.more_members > 0 {
        members.push(markup.escape(&format!("and {} more", story.more_members)));
    }
    let links = [
        story
            .acknowledge
            .as_deref()
            .map(|url| markup.link("Acknowledge", url)),
        story
            .link
            .as_deref()
            .map(|url| markup.link("Open in Deadbeat", url)),
        story
            .cause
            .as_ref()
            .map(|cause| markup.link(&cause.label(), &cause.url)),
    ];
    let heading = |text: &str| Some(markup.bold(&markup.escape(text)));
    vec![
        Section {
            rank: 2,
            heading: None,
            lines: facts.collect(),
        },
        Section {
            rank: 1,
            heading: heading("What to do"),
            lines: steps.collect(),
        },
        Section {
            rank: 3,
            heading: heading("What is known"),
            lines: bullets(&story.evidence),
        },
        Section {
            rank: 4,
            heading: heading(&story.members_title()),
            lines: members,
        },
        Section {
            rank: 0,
            heading: None,
            lines: links.into_iter().flatten().collect(),
        },
    ]
}

/// Returns as many lines of a section as fit, after an empty line. None: not even one line fits.
fn fit(section: &Section, markup: &dyn Markup, limit: usize) -> Option<String> {
    let mut text = match &section.heading {
        Some(heading) => format!("\n\n{heading}"),
        None => "\n".to_owned(),
    };
    let mut count = 0;
    for (index, line) in section.lines.iter().enumerate() {
        let is_last = index + 1 == section.lines.len();
        let longer = format!("{text}\n{line}");
        let with_more = if is_last {
            longer.clone()
        } else {
            format!("{longer}\n{MORE}")
        };
        if markup.length(&with_more) > limit {
            if count > 0 {
                text.push('\n');
                text.push_str(MORE);
            }
            break;
        }
        text = longer;
        count += 1;
    }
    (count > 0).then_some(text)
}

/// Returns a text of at most `most` characters, cut between words if possible.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(most.saturating_sub(1)).collect();
    let whole = head.rfind(' ').filter(|end| *end * 2 > head.len());
    let kept = whole.map_or(head.as_str(), |end| &head[..end]);
    format!("{}{MORE}", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::outbox::samples;

    /// Text without any markup.
    struct Plain;

    impl Markup for Plain {
        fn escape(&self, text: &str) -> String {
            text.to_owned()
        }

        fn bold(&self, escaped: &str) -> String {
            escaped.to_owned()
        }

        fn code(&self, command: &str) -> Option<String> {
            Some(format!("    {command}"))
        }

        fn link(&self, label: &str, url: &str) -> String {
            format!("{label}: {url}")
        }
    }

    /// Marks everything, so that a test sees what was cut inside.
    struct Marked;

    impl Markup for Marked {
        fn escape(&self, text: &str) -> String {
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('*', "&ast;")
        }
        fn bold(&self, escaped: &str) -> String {
            format!("<b>{escaped}</b>")
        }
        fn code(&self, command: &str) -> Option<String> {
            Some(format!("<pre>{}</pre>", self.escape(command)))
        }
        fn link(&self, label: &str, url: &str) -> String {
            format!("<a href=\"{url}\">{}</a>", self.escape(label))
        }
    }

    #[test]
    fn every_limit_is_kept_and_no_markup_is_cut() {
        for message in samples::all() {
            let story = Story::of(&message);
            for limit in 10..1_500 {
                let text = render(&story, &Marked, Content::All, limit);

                assert!(
                    !text.is_empty() && text.chars().count() <= limit,
                    "{limit}: {text}"
                );
                for tag in ["b", "pre", "a"] {
                    let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
                    assert_eq!(
                        text.matches(&open).count(),
                        text.matches(&close).count(),
                        "{limit}: {text}"
                    );
                }
                assert!(
                    text.split('&')
                        .skip(1)
                        .all(|after| { ["amp;", "lt;", "ast;"].iter().any(|name| after.starts_with(name)) }),
                    "{limit}: {text}"
                );
            }
        }
    }

    #[test]
    fn what_matters_most_stays_longest() {
        let mut story = Story::of(&samples::all()[0]);
        story.headline = "DOWN: nightly".to_owned();
        story.summary = Some("it is silent".to_owned());
        story.facts = vec![("Down since", "03:00".to_owned())];
        story.steps.clear();
        story.evidence = (0..50).map(|n| format!("fact number {n}")).collect();
        story.members.clear();
        story.cause = None;
        story.link = Some("https://deadbeat.example.org/i/1".to_owned());

        let text = render(&story, &Plain, Content::All, 160);

        assert!(
            text.starts_with("DOWN: nightly\nit is silent\n\nDown since: 03:00"),
            "{text}"
        );
        assert!(text.contains("fact number 0\n"), "{text}");
        assert!(
            text.contains(&format!(
                "{MORE}\n\nOpen in Deadbeat: https://deadbeat.example.org/i/1"
            )),
            "{text}"
        );
    }

    #[test]
    fn texts_are_cut_between_words() {
        for (text, most, expected) in [
            ("one two three", 20, "one two three"),
            ("one two three", 10, "one two…"),
            ("abcdefghij", 5, "abcd…"),
            ("日本語テキスト", 3, "日本…"),
            ("ab", 1, "…"),
        ] {
            assert_eq!(cut(text, most), expected);
        }
    }
}
