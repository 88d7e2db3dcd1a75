//! GitHub Flavored Markdown (<https://github.github.com/gfm/>).

use super::super::markup::Markup;

/// Characters that begin markup or a link. `.` and `:` make links of bare addresses.
const SPECIAL: &str = "\\`*_{}[]<>()+-.!|~&:$=";

/// Markdown, counted in bytes: GitHub's answers repeat the text, and only the beginning of an answer is read.
pub(super) struct Markdown;

impl Markup for Markdown {
    /// Escapes with a backslash (GFM, 2.4). GitHub searches for mentions and references after it has rendered the
    /// Markdown, so a backslash does not help against `@` and `#`. Look-alike characters replace them.
    fn escape(&self, text: &str) -> String {
        let mut escaped = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            match c {
                '@' => escaped.push('＠'),
                '#' => escaped.push('＃'),
                c if SPECIAL.contains(c) => {
                    escaped.push('\\');
                    escaped.push(c);
                }
                c => escaped.push(c),
            }
        }
        escaped
    }

    fn bold(&self, escaped: &str) -> String {
        format!("**{escaped}**")
    }

    /// Formats a block of code, in which GitHub reads no markup, mentions or references. The fence is longer than any
    /// run of backticks inside.
    fn code(&self, command: &str) -> Option<String> {
        if command.contains(['\n', '\r']) {
            return None;
        }
        let longest = command
            .split(|c| c != '`')
            .map(str::len)
            .max()
            .unwrap_or_default();
        let fence = "`".repeat(longest.max(2) + 1);
        Some(format!("{fence}\n{command}\n{fence}"))
    }

    fn link(&self, label: &str, url: &str) -> String {
        let url = url.replace('\\', "%5C").replace('<', "%3C").replace('>', "%3E");
        format!("[{}](<{url}>)", self.escape(label))
    }

    fn length(&self, text: &str) -> usize {
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_no_markup() {
        assert_eq!(
            Markdown.escape("@org/team #12 [x](https://evil.example) <img> **b** `c` www.a.example"),
            "＠org/team ＃12 \\[x\\]\\(https\\://evil\\.example\\) \\<img\\> \\*\\*b\\*\\* \\`c\\` www\\.a\\.example"
        );
    }

    #[test]
    fn no_command_ends_its_block() {
        for (command, fence) in [
            ("celery report", "```"),
            ("echo `date`", "```"),
            ("echo ```", "````"),
            ("`````", "``````"),
        ] {
            assert_eq!(
                Markdown.code(command).unwrap(),
                format!("{fence}\n{command}\n{fence}")
            );
        }
        assert_eq!(Markdown.code("a\n```\nb"), None);
        assert_eq!(
            Markdown.link("a]b", "https://a.example/x>y\\"),
            "[a\\]b](<https://a.example/x%3Ey%5C>)"
        );
    }
}
