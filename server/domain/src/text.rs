//! Texts from outside: names, host names, classes of exceptions. A [`Text`] can be shown on a line and pasted into a terminal.
//!
//! A text from outside may end a line, move a terminal's cursor, or show other characters than it holds. [`Text`] is
//! parsed once, at the border of the server, and trusted from then on. It has three constructors:
//!
//! | constructor | for | a faulty text is | Unicode form |
//! | --- | --- | --- | --- |
//! | [`Text::label`] | a person's name for a monitor, tag, channel, key or project | refused | NFC |
//! | [`Text::name`] | Celery's name of an application, entry, queue or worker | refused | as sent |
//! | [`Text::cleaned`] | fields for which no signal may be refused: hosts, tasks, ids, exceptions | kept, with U+FFFD for each fault | as sent |
//!
//! Names of Celery keep their bytes, because a broker compares bytes: after normalization a queue's name would name another queue.
//!
//! A fault is a control character, a line or paragraph separator, a mark that changes the direction of writing, or a
//! character that is not visible. U+200C and U+200D join letters and emoji ("👩‍🚀", Persian, Hindi). They are allowed
//! between two characters beyond ASCII, and are faults elsewhere. The tag characters (U+E0000 to U+E0FFF) are faults,
//! so the flags of England, Scotland and Wales are refused. U+FFFD is a fault in labels and names, so a cleaned text
//! never equals a name.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::limits;

/// A text without control, direction and invisible characters, of limited length.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text(String);

/// Most bytes of one character in UTF-8.
const CHAR_BYTES: usize = 4;
/// NFC shortens a text to a third at most: three jamo become one syllable.
const NFC_SHRINKS: usize = 3;

/// The kind of a character's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It ends lines or controls terminals.
    Control,
    /// It changes the direction of writing, so the text shows other words than it holds.
    Direction,
    /// It is not visible, so two different texts look the same.
    Invisible,
    /// U+FFFD: it stands for a character that was lost.
    Lost,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Control => "a control character",
            Self::Direction => "a mark that changes the direction of writing",
            Self::Invisible => "an invisible character",
            Self::Lost => "the sign for a lost character",
        }
    }
}

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// It is empty, or has only whitespace.
    #[error("has {length} characters; 1 to {most} are allowed, not only blanks")]
    Blank {
        /// Its characters.
        length: usize,
        /// How many are allowed.
        most: usize,
    },
    /// It is too long.
    #[error("has {length} characters; 1 to {most} are allowed, not only blanks")]
    Long {
        /// Its characters, in the form in which it would be kept.
        length: usize,
        /// How many are allowed.
        most: usize,
    },
    /// It has far more bytes than the allowed characters can have, so its characters were not counted.
    #[error("has {bytes} bytes; 1 to {most} characters are allowed")]
    Huge {
        /// Its bytes.
        bytes: usize,
        /// How many characters are allowed.
        most: usize,
    },
    /// A character is not allowed.
    #[error("holds {}, {}; only visible text is allowed", Code(*.found), .kind.words())]
    Char {
        /// Counted from 1.
        position: usize,
        /// The character.
        found: char,
        /// What is wrong with it.
        kind: Kind,
    },
}

impl TextError {
    /// The first faulty character, counted from 1. None: no single character is at fault.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Char { position, .. } => Some(*position),
            _ => None,
        }
    }
}

/// Prints a character as `U+202E`. The character itself would do harm in the message.
struct Code(char);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X}", u32::from(self.0))
    }
}

impl Text {
    /// Reads a name that a person chose, in NFC: 1 to `most` characters, not only whitespace.
    ///
    /// # Errors
    /// The first fault.
    pub fn label(raw: &str, most: usize) -> Result<Self, TextError> {
        // Refuses long input before normalizing it: that bounds the work.
        if raw.len() > NFC_SHRINKS * CHAR_BYTES * most {
            return Err(TextError::Huge {
                bytes: raw.len(),
                most,
            });
        }
        let text = if is_nfc(raw) {
            raw.to_owned()
        } else {
            raw.nfc().collect()
        };
        checked(text, most)
    }

    /// Reads Celery's name of something, byte by byte: 1 to `most` characters, not only whitespace.
    ///
    /// # Errors
    /// The first fault.
    pub fn name(raw: &str, most: usize) -> Result<Self, TextError> {
        if raw.len() > NFC_SHRINKS * CHAR_BYTES * most {
            return Err(TextError::Huge {
                bytes: raw.len(),
                most,
            });
        }
        checked(raw.to_owned(), most)
    }

    /// Cleans any text: replaces each fault by U+FFFD, and cuts a text of more than `most` characters so that it ends
    /// in `…`.
    #[must_use]
    pub fn cleaned(raw: impl Into<String>, most: usize) -> Self {
        let raw = raw.into();
        match Self::clean(&raw, most) {
            Cow::Owned(cleaned) => Self(cleaned),
            Cow::Borrowed(_) => Self(raw),
        }
    }

    /// Like [`Text::cleaned`], but borrows the text if nothing has to change.
    #[must_use]
    pub fn clean(raw: &str, most: usize) -> Cow<'_, str> {
        // Nearly every text takes this way: one pass over its bytes, and no allocation.
        if raw.len() <= most && is_printable_ascii(raw) {
            return Cow::Borrowed(raw);
        }
        let cut = raw.char_indices().nth(most).map(|_| most.saturating_sub(1));
        let replaced = replaced(raw, char::REPLACEMENT_CHARACTER);
        Cow::Owned(match cut {
            Some(kept) => replaced.take(kept).chain(['…']).collect(),
            None => replaced.collect(),
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn checked(text: String, most: usize) -> Result<Text, TextError> {
    let length = text.chars().count();
    if length > most {
        return Err(TextError::Long { length, most });
    }
    if text.trim().is_empty() {
        return Err(TextError::Blank { length, most });
    }
    if is_printable_ascii(&text) {
        return Ok(Text(text));
    }
    for (index, (found, fault)) in judged(&text).enumerate() {
        let lost = (found == char::REPLACEMENT_CHARACTER).then_some(Kind::Lost);
        if let Some(kind) = fault.or(lost) {
            return Err(TextError::Char {
                position: index + 1,
                found,
                kind,
            });
        }
    }
    Ok(Text(text))
}

fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Each character with its fault. The fault of a joiner depends on its neighbours.
fn judged(text: &str) -> impl Iterator<Item = (char, Option<Kind>)> {
    let mut before = None;
    let mut rest = text.chars().peekable();
    std::iter::from_fn(move || {
        let c = rest.next()?;
        let fault = match fault_of(c) {
            None if is_joiner(c)
                && !(before.is_some_and(is_joined) && rest.peek().copied().is_some_and(is_joined)) =>
            {
                Some(Kind::Invisible)
            }
            fault => fault,
        };
        before = Some(c);
        Some((c, fault))
    })
}

/// The fault that a character has in any place.
fn fault_of(c: char) -> Option<Kind> {
    match c {
        c if c.is_control() => Some(Kind::Control),
        '\u{2028}' | '\u{2029}' => Some(Kind::Control),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(Kind::Direction)
        }
        // Soft hyphen, grapheme joiner, Hangul fillers, Khmer vowels that are never shown, the Mongolian separator,
        // zero-width space and no-break space, invisible operators, format characters that Unicode has withdrawn,
        // interlinear annotations, tags.
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => Some(Kind::Invisible),
        _ => None,
    }
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// True if a joiner may stand beside this character.
fn is_joined(c: char) -> bool {
    !c.is_ascii() && !c.is_whitespace() && !is_joiner(c) && fault_of(c).is_none()
}

/// True if the text can be shown on one line as it is. U+FFFD is allowed.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    is_printable_ascii(text) || judged(text).all(|(_, fault)| fault.is_none())
}

/// The characters of a text, with `with` in the place of each fault.
pub fn replaced(text: &str, with: char) -> impl Iterator<Item = char> {
    judged(text).map(move |(c, fault)| fault.map_or(c, |_| with))
}

/// Returns a text for people to read: each fault is written as its escape, such as `\u{202e}`. Rows that older versions
/// wrote may hold faults.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for (c, fault) in judged(text) {
        match fault {
            Some(_) => shown.extend(c.escape_unicode()),
            None => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// Cleans a field of an event while reading it. Otherwise the name of a host could make the server refuse an event.
impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|raw| Self::cleaned(raw, limits::TEXT_CHARS))
    }
}

#[cfg(test)]
mod tests;
