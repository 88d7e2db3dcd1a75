//! Texts that a person writes for a schedule: how to split them, and how to report the position of a fault.

/// A fault of a schedule expression, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("character {position}: {message}")]
pub struct ExpressionError {
    /// The first faulty character, counted from 1.
    pub position: usize,
    /// A message for a person: the faulty value, and the allowed ones.
    pub message: String,
}

/// A piece of the expression, and the position of its first character, counted from 1. Callers have checked that the
/// expression is ASCII.
pub(crate) type Piece<'a> = (usize, &'a str);

/// Makes a fault. Replaces tabs in its message, which may quote the expression.
pub(crate) fn fault(position: usize, message: impl Into<String>) -> ExpressionError {
    ExpressionError {
        position,
        message: message.into().replace('\t', " "),
    }
}

/// Refuses a text that is too long or not printable ASCII, so that later code may count bytes.
pub(crate) fn check_characters(expression: &str, most: usize) -> Result<(), ExpressionError> {
    for (index, character) in expression.chars().enumerate() {
        if index == most {
            return Err(fault(
                index + 1,
                format!("an expression has at most {most} characters"),
            ));
        }
        if !matches!(character, ' ' | '\t' | '!'..='~') {
            let message = format!(
                "'{}' has no meaning in a schedule expression",
                character.escape_default()
            );
            return Err(fault(index + 1, message));
        }
    }
    Ok(())
}

pub(crate) fn split_fields(expression: &str) -> Vec<Piece<'_>> {
    pieces(1, expression, |character| matches!(character, ' ' | '\t'))
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

/// Splits ASCII text and keeps the positions.
pub(crate) fn pieces(at: usize, text: &str, separator: fn(char) -> bool) -> impl Iterator<Item = Piece<'_>> {
    let mut next_at = at;
    text.split(separator).map(move |piece| {
        let at = next_at;
        next_at += piece.len() + 1;
        (at, piece)
    })
}

pub(crate) fn single_spaced(fields: &[Piece<'_>]) -> String {
    fields.iter().map(|(_, text)| *text).collect::<Vec<_>>().join(" ")
}

/// Reads a text of digits only. A number that is too large becomes the largest one, which every caller refuses.
pub(crate) fn read_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}
