//! Keeps texts from outside plain for services without an escape, and holds common code of the markups.

use super::super::markup::Markup;

/// Returns the text without addresses that clients would turn into links by themselves: `https://` and `www.`.
pub(in crate::alert::delivery::senders) fn unlinked(text: &str) -> String {
    let text = text.replace("://", ":∕∕");
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.to_ascii_lowercase().find("www.") {
        plain.push_str(&rest[..at + 3]);
        plain.push('․');
        rest = &rest[at + 4..];
    }
    plain + rest
}

/// Returns the text with look-alikes of characters that have a meaning for a service and no escape.
pub(super) fn swapped(text: &str, pairs: &[(char, char)]) -> String {
    text.chars()
        .map(|c| pairs.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to))
        .collect()
}

/// Returns the text with a backslash before each of these characters. Also escapes a beginning that would make a list
/// or a line.
pub(super) fn backslashed(text: &str, special: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (index, c) in text.char_indices() {
        if special.contains(c) || index == 0 && matches!(c, '-' | '+' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Formats a link in Markdown. No character of the address can end it.
pub(super) fn markdown_link(escaped_label: &str, url: &str) -> String {
    let url: String = url
        .chars()
        .map(|c| match c {
            '(' => "%28".to_owned(),
            ')' => "%29".to_owned(),
            '<' => "%3C".to_owned(),
            '>' => "%3E".to_owned(),
            '|' => "%7C".to_owned(),
            '"' => "%22".to_owned(),
            '\\' => "%5C".to_owned(),
            ' ' => "%20".to_owned(),
            other => other.to_string(),
        })
        .collect();
    format!("[{escaped_label}]({url})")
}

/// Formats a block of code between fences of backticks. None: the command would end the block.
pub(super) fn fenced(command: &str) -> Option<String> {
    (!command.contains("```")).then(|| format!("```\n{command}\n```"))
}

/// Returns the length in units of UTF-16.
pub(super) fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The HTML that Telegram and Matrix accept.
pub(super) struct Html {
    /// Counts the length as the service does.
    pub(super) length: fn(&str) -> usize,
}

fn entities(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Markup for Html {
    /// Clients turn `@` into mentions, even without markup.
    fn escape(&self, text: &str) -> String {
        entities(&swapped(&unlinked(text), &[('@', '＠')]))
    }

    fn bold(&self, escaped: &str) -> String {
        format!("<b>{escaped}</b>")
    }

    fn code(&self, command: &str) -> Option<String> {
        Some(format!("<pre>{}</pre>", entities(command)))
    }

    fn link(&self, label: &str, url: &str) -> String {
        format!("<a href=\"{}\">{}</a>", entities(url), self.escape(label))
    }

    fn length(&self, text: &str) -> usize {
        (self.length)(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_texts_are_broken() {
        for (text, plain) in [
            ("see https://evil.example now", "see https:∕∕evil.example now"),
            ("WWW.evil.example www.x", "WWW․evil.example www․x"),
            ("redis://10.0.0.1:6379/0", "redis:∕∕10.0.0.1:6379/0"),
            ("ÄÖwww.ß", "ÄÖwww․ß"),
            ("shop.tasks.nightly", "shop.tasks.nightly"),
        ] {
            assert_eq!(unlinked(text), plain);
        }
    }

    #[test]
    fn links_cannot_be_left() {
        assert_eq!(
            markdown_link("x", "https://a.example/(b)>|\\\" c"),
            "[x](https://a.example/%28b%29%3E%7C%5C%22%20c)"
        );
        let html = Html {
            length: |text| text.len(),
        };
        assert_eq!(
            html.link("<x>", "https://a.example/?a=1&b=\"><b>"),
            "<a href=\"https://a.example/?a=1&amp;b=&quot;&gt;&lt;b&gt;\">&lt;x&gt;</a>"
        );
    }

    #[test]
    fn markdown_is_escaped_and_begins_no_list() {
        assert_eq!(backslashed("- *a* [b]", "*[]"), "\\- \\*a\\* \\[b\\]");
        assert_eq!(backslashed("a-b", "*"), "a-b");
        assert_eq!(fenced("a ``` b"), None);
    }
}
