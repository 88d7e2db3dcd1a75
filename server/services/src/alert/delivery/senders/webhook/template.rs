//! Templates: the crate `minijinja` with limits of time and memory (ADR 040). A template reaches nothing but the message.
//!
//! A template has no files, no includes, no macros and no functions. Each rendering has a budget, which steps and bytes of values use up.
//! The budget counts a list by its items. A list that holds one list many times is far longer as a text, so templates make no lists
//! ([`bounds`]). The parser is recursive, so work with templates runs on a thread with a large stack: see [`apart`].

mod bounds;

#[cfg(test)]
pub(super) use bounds::FILTERS;

use std::sync::Arc;
use std::thread;

use deadbeat_domain::limits;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Template, UndefinedBehavior, Value};
use serde::de::IgnoredAny;

use super::escape::{self, Language, Place, Sink};

/// The budget of one rendering. One unit is about a step, or 64 bytes. So a rendering has 2 MB at most, and takes some hundredths of a second.
const FUEL: u64 = 30_000;
/// The most levels of nested loops and conditions.
const DEPTH: usize = 50;
/// The most characters of a message of the engine that a fault repeats.
const MESSAGE_CHARS: usize = 300;
/// The bytes of the stack of [`apart`]. A template of [`limits::TEMPLATE_CHARS`] operators needs a quarter of them in a debug build, and less
/// in a release. Only used pages take memory.
const STACK: usize = 32 << 20;

/// A fault of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The fault as a text for people. It holds no value of the message: a value may be a secret, such as the link that acknowledges.
    pub(super) message: String,
    /// The text around the fault, with values. Only for messages that are examples.
    pub(super) near: Option<String>,
    /// The place in the template, if the fault has one.
    pub(super) at: Option<At>,
}

/// A place in a template, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// The number of the character in the template.
    pub(super) position: usize,
    /// The number of the line.
    pub(super) line: usize,
    /// The number of the character in that line.
    pub(super) column: usize,
}

impl At {
    fn of(source: &str, offset: usize) -> Self {
        let mut end = offset.min(source.len());
        while !source.is_char_boundary(end) {
            end -= 1;
        }
        let before = &source[..end];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            position: before.chars().count() + 1,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Runs work with templates on a thread with a large stack.
///
/// # Errors
/// The operating system made no thread, or the work panicked.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    let ended = thread::scope(|scope| {
        let made = thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work);
        made.ok().and_then(|thread| thread.join().ok())
    });
    ended.ok_or_else(|| Fault {
        message: "the template could not be worked on".to_owned(),
        near: None,
        at: None,
    })
}

/// Compiles and renders templates. Use it only within [`apart`].
pub(super) struct Engine {
    environment: Environment<'static>,
    place: Arc<Place>,
    language: Language,
}

impl Engine {
    /// Makes an engine for templates of this language.
    pub(super) fn new(language: Language) -> Self {
        let place = Arc::new(Place::default());
        let mut environment = Environment::new();
        let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        for name in globals {
            environment.remove_global(&name);
        }
        bounds::remove_filters(&mut environment);
        environment.add_filter("tojson", escape::tojson);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_recursion_limit(DEPTH);
        environment.set_fuel(Some(FUEL));
        // Faults name undefined variables only in debug mode.
        environment.set_debug(true);
        let of_formatter = Arc::clone(&place);
        environment.set_formatter(move |out, _, value| escape::print(out, value, language, &of_formatter));
        Self {
            environment,
            place,
            language,
        }
    }

    /// Reads a template.
    ///
    /// # Errors
    /// The syntax is wrong, or the template uses what it may not.
    pub(super) fn compile<'a>(&'a self, source: &'a str) -> Result<Compiled<'a>, Fault> {
        let template = self
            .environment
            .template_from_str(source)
            .map_err(|error| fault(&error, source))?;
        bounds::check(&template).map_err(|(message, offset)| Fault {
            message,
            near: None,
            at: offset.map(|offset| At::of(source, offset)),
        })?;
        Ok(Compiled {
            engine: self,
            template,
            source,
        })
    }
}

/// A compiled template.
pub(super) struct Compiled<'a> {
    engine: &'a Engine,
    template: Template<'a, 'a>,
    source: &'a str,
}

impl Compiled<'_> {
    /// Makes the text. If the language is JSON, the text is valid JSON.
    ///
    /// # Errors
    /// The fault, and its place in the template.
    pub(super) fn render(&self, variables: &serde_json::Value) -> Result<String, Fault> {
        let variables = Value::from(Serde(variables));
        let mut sink = Sink::new(&self.engine.place);
        let rendered = self
            .template
            .render_captured_to(variables.clone(), &mut sink)
            .map(drop);
        if sink.is_full {
            return Err(Fault {
                message: format!(
                    "it makes more than {} bytes, which are the most that are allowed",
                    limits::TEMPLATE_OUTPUT_BYTES
                ),
                near: None,
                at: None,
            });
        }
        rendered.map_err(|error| fault(&error, self.source))?;
        let text = sink.into_text();
        if self.engine.language == Language::Json {
            self.check_json(&text, variables)?;
        }
        Ok(text)
    }

    fn check_json(&self, text: &str, variables: Value) -> Result<(), Fault> {
        let Err(error) = serde_json::from_str::<IgnoredAny>(text) else {
            return Ok(());
        };
        // serde_json counts bytes in its columns. For the end of the text it names the last line.
        let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
        let offset = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        Err(Fault {
            message: format!("the text that it makes is not JSON: {reason}"),
            near: excerpt(text, offset),
            at: self.origin(offset, variables),
        })
    }

    /// Returns the part of the template that made the byte at this offset of the text.
    fn origin(&self, offset: usize, variables: Value) -> Option<At> {
        self.engine.place.replay();
        let (_, spans) = self.template.render_with_spans(variables).ok()?;
        let span = spans
            .iter()
            .find(|span| span.output_range().contains(&offset))
            .or(spans.last())?;
        let (output, source) = (span.output_range(), span.source_range());
        // The output repeats literal text of the template unchanged.
        let is_raw = span.kind() == minijinja::OutputSpanKind::Raw;
        let within = if is_raw {
            offset.saturating_sub(output.start).min(source.len())
        } else {
            0
        };
        Some(At::of(self.source, source.start + within))
    }
}

/// Returns some characters around a byte.
fn excerpt(text: &str, offset: usize) -> Option<String> {
    let (before, after): (Vec<_>, Vec<_>) = text.char_indices().partition(|(at, _)| *at < offset);
    let near = before
        .iter()
        .skip(before.len().saturating_sub(15))
        .chain(after.iter().take(15));
    let near: String = near.map(|(_, c)| *c).collect();
    (!near.trim().is_empty()).then_some(near)
}

fn fault(error: &Error, source: &str) -> Fault {
    let words = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "it takes too many steps, or makes too much data".to_owned(),
        (kind, None) => kind.to_string(),
        (_, Some(detail)) => detail.to_owned(),
    };
    let of_line = |line: usize| {
        source
            .split_inclusive('\n')
            .take(line.saturating_sub(1))
            .map(str::len)
            .sum::<usize>()
    };
    let offset = error
        .range()
        .map(|range| range.start)
        .or_else(|| error.line().map(of_line));
    Fault {
        message: crate::alert::delivery::senders::printable(&words, MESSAGE_CHARS),
        near: None,
        at: offset.map(|offset| At::of(source, offset)),
    }
}

#[cfg(test)]
mod tests;
