//! Text without markup, for services that pass it on to other services. None of those may read a mention or a tag in
//! it.

use super::super::markup::Markup;

/// Words that mention everybody in chats, after an `@`.
const ALL: [&str; 5] = ["all", "channel", "everyone", "here", "room"];

/// Plain text.
pub(super) struct Plain;

impl Markup for Plain {
    /// Chats write mentions and links with `<`, `>` and `@`, and some pagers render tags of HTML. No escape works for
    /// all of them, so look-alike characters replace these characters.
    fn escape(&self, text: &str) -> String {
        neutral(text).replace('@', "＠")
    }

    fn bold(&self, escaped: &str) -> String {
        escaped.to_owned()
    }

    /// Returns a command unchanged. None: a service could read a tag or a mention in it.
    fn code(&self, command: &str) -> Option<String> {
        (!is_tag(command) && !mentions_all(command)).then(|| format!("    {command}"))
    }

    fn link(&self, label: &str, url: &str) -> String {
        format!("{label}: {url}")
    }
}

/// Returns a text in which no chat and no page reads a tag. An `@` stays, because filters must match the names of
/// workers.
pub(super) fn neutral(text: &str) -> String {
    text.replace('<', "‹").replace('>', "›")
}

fn is_tag(text: &str) -> bool {
    text.split('<').skip(1).any(|after| {
        after
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?' | '@' | '#'))
    })
}

fn mentions_all(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower
        .split('@')
        .skip(1)
        .any(|after| ALL.iter().any(|word| after.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hold_no_tags_and_no_mentions() {
        assert_eq!(
            Plain.escape("<!channel> @everyone <b>celery@web-1</b> a & b"),
            "‹!channel› ＠everyone ‹b›celery＠web-1‹/b› a & b"
        );
        assert_eq!(neutral("<@U012> celery@web-1"), "‹@U012› celery@web-1");
    }

    #[test]
    fn commands_stay_as_they_are_or_are_left_out() {
        for (command, is_shown) in [
            ("celery -A shop inspect ping -d celery@web-1", true),
            ("redis-cli < commands.txt > out", true),
            ("echo '<b>'", false),
            ("echo '<!channel>'", false),
            ("echo '<@U012>'", false),
            ("celery inspect ping -d celery@Everyone", false),
            ("celery inspect ping -d worker@here", false),
        ] {
            let shown = Plain.code(command);
            assert_eq!(shown.is_some(), is_shown, "{command}");
            assert!(shown.is_none_or(|shown| shown == format!("    {command}")));
        }
    }
}
