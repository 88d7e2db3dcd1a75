//! Commands that a person pastes into a shell. They are built from arguments, and only one function quotes.
//!
//! The words of Deadbeat are `&'static str`. Everything else is an argument, such as a name from outside, and
//! [`Command::arg`] quotes it. A [`Line`] has no other constructor, so a line made by `format!` does not compile.
//!
//! If an argument cannot be quoted safely, there is no line. [`Repair`](crate::incident::Repair) then asks the person
//! to type the command by hand.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::text;

/// A finished line: it can be pasted into sh, bash, zsh and fish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Line(String);

impl Line {
    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a stored line back. None: the line is not safe to paste. An old version wrote it, which did not check names.
///
/// # Errors
/// If the value is neither a text nor null.
pub fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Line>, D::Error> {
    let line = Option::<String>::deserialize(deserializer)?;
    Ok(line.filter(|line| text::is_plain(line)).map(Line))
}

/// Why there is no line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unquotable {
    /// The argument holds characters that a terminal may obey, or that look like others. The message shows their
    /// escapes.
    #[error("\"{0}\" holds characters that are not safe to paste")]
    Hidden(String),
    /// The argument begins with a hyphen, so the program would read it as an option.
    #[error("\"{0}\" begins with a hyphen and would be read as an option")]
    Option(String),
    /// The argument holds a comma, and the program splits its argument at commas.
    #[error("\"{0}\" holds a comma, which separates names there")]
    Comma(String),
    /// No single process has that number, so `kill` would signal others.
    #[error("{0} is not the number of a single process")]
    Process(i64),
}

/// A line under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    line: Result<String, Unquotable>,
}

impl Command {
    /// Begins a line with words of Deadbeat, written as they are.
    #[must_use]
    pub fn new(words: &'static str) -> Self {
        Self {
            line: Ok(words.to_owned()),
        }
    }

    fn push(mut self, separator: &str, word: Result<String, Unquotable>) -> Self {
        match (&mut self.line, word) {
            (Ok(line), Ok(word)) => {
                line.push_str(separator);
                line.push_str(&word);
            }
            (Ok(_), Err(error)) => self.line = Err(error),
            (Err(_), _) => {}
        }
        self
    }

    /// Adds words of Deadbeat, written as they are.
    #[must_use]
    pub fn words(self, words: &'static str) -> Self {
        self.push(" ", Ok(words.to_owned()))
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(self, argument: &str) -> Self {
        self.push(" ", quoted(argument))
    }

    /// Adds one argument that the program splits at commas: a list of one item.
    #[must_use]
    pub fn item(self, argument: &str) -> Self {
        self.list(&[argument])
    }

    /// Adds several items as one argument, separated by commas.
    #[must_use]
    pub fn list(self, arguments: &[impl AsRef<str>]) -> Self {
        let mut parts = arguments.iter().map(AsRef::as_ref);
        let word = match parts.clone().find(|part| part.contains(',')) {
            Some(part) => Err(Unquotable::Comma(text::visible(part).into_owned())),
            // The program reads each item as a separate word, so each must be quotable.
            None => match parts.clone().find_map(|part| quoted(part).err()) {
                Some(error) => Err(error),
                None => quoted(&parts.by_ref().collect::<Vec<_>>().join(",")),
            },
        };
        self.push(" ", word)
    }

    /// Adds a process id. `kill` reads 0 and -1 as many processes, and 1 is the system's first process.
    #[must_use]
    pub fn process(self, pid: i64) -> Self {
        let word = if (2..=i64::from(i32::MAX)).contains(&pid) {
            Ok(pid.to_string())
        } else {
            Err(Unquotable::Process(pid))
        };
        self.push(" ", word)
    }

    /// Adds another command in words of Deadbeat. It runs whether or not the first one succeeds.
    #[must_use]
    pub fn then(self, words: &'static str) -> Self {
        self.push("; ", Ok(words.to_owned()))
    }

    /// Finishes the line.
    ///
    /// # Errors
    /// The first argument that cannot be quoted.
    pub fn finish(self) -> Result<Line, Unquotable> {
        self.line.map(Line)
    }
}

/// Quotes one argument for sh, bash, zsh and fish. Between single quotes, all four take every character as it is,
/// except that in fish a backslash escapes a quote or a backslash. So quotes and backslashes go between double quotes,
/// where all four agree.
fn quoted(argument: &str) -> Result<String, Unquotable> {
    if !text::is_plain(argument) || argument.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Unquotable::Hidden(text::visible(argument).into_owned()));
    }
    if argument.starts_with('-') {
        return Err(Unquotable::Option(argument.to_owned()));
    }
    // zsh expands a word that begins with `=`, so such a word is quoted.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%_-+:,./".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return Ok(argument.to_owned());
    }
    let mut word = String::with_capacity(argument.len() + 2);
    word.push('\'');
    for c in argument.chars() {
        match c {
            '\'' => word.push_str(r#"'"'"'"#),
            '\\' => word.push_str(r#"'"\\"'"#),
            c => word.push(c),
        }
    }
    word.push('\'');
    Ok(word)
}

#[cfg(test)]
mod tests;
