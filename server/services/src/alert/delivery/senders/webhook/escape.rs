//! Escapes the values that a template prints. The place of a value decides how it is escaped, so that no value can end the string, the
//! field or the part of an address that surrounds it.
//!
//! The engine calls the formatter for each printed value. The right escape depends on the text before the value, so the [`Sink`] follows
//! the text that was written. Text that a `{% set %}` or `{% filter %}` block captures does not reach the sink: it stays plain, and is
//! escaped when the template prints it.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deadbeat_domain::limits;
use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use url::form_urlencoded;

use crate::alert::delivery::senders::email::mail;

/// The format of the text that a template makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// Between the quotes of a string a value is escaped as a part of that string. Elsewhere it is written as JSON: a text gets quotes.
    Json,
    /// HTML and XML.
    Markup,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// A path and query.
    Path,
    /// Nothing is escaped.
    Plain,
}

impl Language {
    /// Returns the language of a media type.
    pub(super) fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "text/html" | "text/xml" | "application/xml" => Self::Markup,
            essence if essence.ends_with("+json") => Self::Json,
            essence if essence.ends_with("+xml") => Self::Markup,
            _ => Self::Plain,
        }
    }

    /// Returns the value as text for this place.
    fn write(self, value: &Value, place: &Place) -> Result<String, Error> {
        let text = || text_of(value);
        Ok(match self {
            // The backslash would escape the first character of the value.
            Self::Json if place.is_escaped.load(Ordering::Relaxed) => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "a value cannot follow a backslash",
                ));
            }
            Self::Json if place.is_in_string.load(Ordering::Relaxed) => {
                let quoted = serde_json::to_string(&*text()?).map_err(unwritable)?;
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::Json => json_of(value)?,
            Self::Markup => mail::escape(&text()?),
            Self::Form => form_urlencoded::byte_serialize(text()?.as_bytes()).collect(),
            // `+` means a space only in a query.
            Self::Path => form_urlencoded::byte_serialize(text()?.as_bytes())
                .map(|part| if part == "+" { "%20" } else { part })
                .collect(),
            Self::Plain => text()?.into_owned(),
        })
    }
}

/// Returns a value as a part of a text. An absent value is the empty text; a list or a map is JSON.
fn text_of(value: &Value) -> Result<Cow<'_, str>, Error> {
    Ok(match (value.as_str(), value.kind()) {
        (Some(text), _) => Cow::Borrowed(text),
        (None, ValueKind::None | ValueKind::Undefined) => Cow::Borrowed(""),
        (None, _) => Cow::Owned(json_of(value)?),
    })
}

/// Returns a value as JSON.
///
/// # Errors
/// The value has no JSON, or the JSON is longer than a body may be. A list may hold another list many times, so its JSON may be far longer
/// than the memory that the list takes.
fn json_of(value: &Value) -> Result<String, Error> {
    if let Some(json) = value.downcast_object_ref::<Json>() {
        return Ok(json.0.clone());
    }
    if value.kind() == ValueKind::Invalid {
        return Err(Error::new(ErrorKind::BadSerialization, "the value is not valid"));
    }
    let mut out = Limited(Vec::new());
    serde_json::to_writer(&mut out, value).map_err(unwritable)?;
    String::from_utf8(out.0).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, error.to_string())
}

struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > limits::TEMPLATE_OUTPUT_BYTES {
            return Err(io::Error::other(format!(
                "longer than {} bytes",
                limits::TEMPLATE_OUTPUT_BYTES
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The result of the filter `tojson`: JSON that the formatter does not quote again.
#[derive(Debug)]
struct Json(String);

impl Object for Json {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The filter `tojson`. The engine's own `tojson` marks its result as safe, and other filters may keep the mark. Here nothing is safe.
pub(super) fn tojson(value: &Value) -> Result<Value, Error> {
    json_of(value).map(|json| Value::from_object(Json(json)))
}

/// The place in the text at which the template writes.
#[derive(Default)]
pub(super) struct Place {
    /// Between the quotes of a JSON string.
    is_in_string: AtomicBool,
    /// After a backslash in it.
    is_escaped: AtomicBool,
    /// The number of calls of the sink.
    calls: AtomicUsize,
    /// The printed values, in order: see [`Place::replay`].
    printed: Mutex<Vec<String>>,
    /// The index of the next value to print again. None: this is no replay.
    next: Mutex<Option<usize>>,
}

impl Place {
    /// Goes back to the beginning of a text.
    pub(super) fn reset(&self) {
        self.is_in_string.store(false, Ordering::Relaxed);
        self.is_escaped.store(false, Ordering::Relaxed);
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes the next rendering print the same texts again. The engine says which part of a template made which part of a text only if it
    /// writes the text itself, and then no sink can follow the place.
    pub(super) fn replay(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(0);
    }

    fn replayed(&self) -> Option<String> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let index = next.as_mut()?;
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let text = printed.get(*index)?.clone();
        *index += 1;
        Some(text)
    }

    fn keep(&self, text: &str) {
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.to_owned());
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Follows the strings of JSON.
    fn follow(&self, bytes: &[u8]) {
        let mut in_string = self.is_in_string.load(Ordering::Relaxed);
        let mut escaped = self.is_escaped.load(Ordering::Relaxed);
        for byte in bytes {
            match (in_string, escaped, byte) {
                (true, true, _) => escaped = false,
                (true, false, b'\\') => escaped = true,
                (_, false, b'"') => in_string = !in_string,
                _ => {}
            }
        }
        self.is_in_string.store(in_string, Ordering::Relaxed);
        self.is_escaped.store(escaped, Ordering::Relaxed);
    }
}

/// Takes the text of one rendering.
pub(super) struct Sink {
    place: Arc<Place>,
    text: Vec<u8>,
    /// The text was longer than a body may be.
    pub(super) is_full: bool,
}

impl Sink {
    pub(super) fn new(place: &Arc<Place>) -> Self {
        place.reset();
        Self {
            place: Arc::clone(place),
            text: Vec::new(),
            is_full: false,
        }
    }

    /// Returns the text. The engine writes whole strings, so it is UTF-8.
    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.text).unwrap_or_default()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// Counts a call without bytes, too: [`print`] makes one to find out whether its text reaches the sink.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.place.calls.fetch_add(1, Ordering::Relaxed);
        if self.text.len() + bytes.len() > limits::TEMPLATE_OUTPUT_BYTES {
            self.is_full = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.place.follow(bytes);
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints a value. If a block captures the text, the value is not escaped yet.
pub(super) fn print(
    out: &mut minijinja::Output<'_>,
    value: &Value,
    language: Language,
    place: &Place,
) -> Result<(), Error> {
    if let Some(text) = place.replayed() {
        return Ok(out.write_str(&text)?);
    }
    let before = place.calls();
    out.write_str("")?;
    let is_captured = place.calls() == before;
    let text = if is_captured {
        text_of(value)?.into_owned()
    } else {
        language.write(value, place)?
    };
    place.keep(&text);
    Ok(out.write_str(&text)?)
}
