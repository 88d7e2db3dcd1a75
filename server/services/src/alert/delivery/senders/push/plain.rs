//! Text without markup, for apps that show every character but turn addresses into links.

use super::super::chat::text::unlinked;
use super::super::markup::Markup;

/// Plain text.
pub(super) struct Plain {
    /// Counts the length as the service does.
    pub(super) length: fn(&str) -> usize,
}

/// Counts characters.
pub(super) const CHARS: Plain = Plain {
    length: |text| text.chars().count(),
};

/// Counts bytes of JSON, where Go writes `&`, `<` and `>` as six bytes each. Services written in Go repeat a text in
/// their answer, of which Deadbeat reads 16 KiB.
pub(super) const BYTES: Plain = Plain {
    length: |text| text.len() + 5 * text.matches(['&', '<', '>']).count(),
};

impl Markup for Plain {
    fn escape(&self, text: &str) -> String {
        unlinked(text)
    }

    fn bold(&self, escaped: &str) -> String {
        escaped.to_owned()
    }

    /// Returns a command unchanged. None: an app would make a link of a part of it.
    fn code(&self, command: &str) -> Option<String> {
        (unlinked(command) == command).then(|| format!("    {command}"))
    }

    fn link(&self, label: &str, url: &str) -> String {
        format!("{label}: {url}")
    }

    fn length(&self, text: &str) -> usize {
        (self.length)(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_make_no_links_of_names_and_commands() {
        assert_eq!(
            CHARS.escape("<b> https://evil.example"),
            "<b> https:∕∕evil.example"
        );
        assert_eq!(
            CHARS.code("celery -A shop status").unwrap(),
            "    celery -A shop status"
        );
        assert_eq!(CHARS.code("curl https://evil.example"), None);
        assert_eq!(CHARS.code("ping WWW.evil.example"), None);
    }

    #[test]
    fn lengths_are_those_of_the_service() {
        assert_eq!((CHARS.length("äé"), BYTES.length("äé")), (2, 4));
        assert_eq!((CHARS.length("a<&>"), BYTES.length("a<&>")), (4, 19));
    }
}
