//! The escaper of all pages. A person who copies text from a page gets exactly the text that the page shows.

use std::fmt::{self, Write};

use askama::filters::{Escaper, Html};
use deadbeat_domain::text::visible;

/// Escapes HTML, and writes an escape such as `\u{202e}` for each character that could hide text or control a terminal. New names cannot contain such
/// characters, but rows of older versions may. `askama.toml` applies this escaper to every expression of every template.
#[derive(Debug, Clone, Copy)]
pub struct VisibleHtml;

impl Escaper for VisibleHtml {
    fn write_escaped_str<W: Write>(&self, dest: W, string: &str) -> fmt::Result {
        Html.write_escaped_str(dest, &visible(string))
    }
}

#[cfg(test)]
mod tests {
    use askama::Template;

    #[derive(Template)]
    #[template(source = "<p title=\"{{ text }}\">{{ text }}</p>", ext = "html")]
    struct Page<'a> {
        text: &'a str,
    }

    fn shown(text: &str) -> String {
        Page { text }.render().unwrap()
    }

    #[test]
    fn a_page_shows_what_hides_and_still_escapes_tags() {
        assert_eq!(
            shown("shop\u{3}\n\u{202e}<b>\u{200b}\""),
            r#"<p title="shop\u{3}\u{a}\u{202e}&#60;b&#62;\u{200b}&#34;">shop\u{3}\u{a}\u{202e}&#60;b&#62;\u{200b}&#34;</p>"#
        );
        assert_eq!(
            shown("Straße 👩\u{200d}🚀"),
            "<p title=\"Straße 👩\u{200d}🚀\">Straße 👩\u{200d}🚀</p>"
        );
    }
}
