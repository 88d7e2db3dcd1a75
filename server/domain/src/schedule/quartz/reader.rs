//! The grammar of the `cron` crate's fields, read from left to right.
//!
//! The crate's parser tries alternatives and goes back. This reader decides by the next character instead: after a
//! number or a name and the blanks after it, `-`, `/` or `,` continues the field, and everything else begins the next
//! one. Like the crate, this reader skips no blanks after `*` and `?`, nor before them in a list.

use crate::schedule::expression::{ExpressionError, Piece, fault, read_number};

/// One of the fields: its name, its values, and the names of some values.
pub(super) struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// The names, beginning with the one for `min`.
    names: &'static [&'static [&'static str]],
    signs: Signs,
}

/// Signs of a field besides numbers, names and `*`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signs {
    None,
    /// `?`, `L`, `LW`.
    OfDate,
    /// `?`, `6L`, `6#3`, both also with a name.
    OfWeekday,
}

pub(super) const SECOND: Field = Field {
    name: "second",
    min: 0,
    max: 59,
    names: &[],
    signs: Signs::None,
};
pub(super) const MINUTE: Field = Field {
    name: "minute",
    ..SECOND
};
pub(super) const HOUR: Field = Field {
    name: "hour",
    max: 23,
    ..SECOND
};
pub(super) const DATE: Field = Field {
    name: "day-of-month",
    min: 1,
    max: 31,
    names: &[],
    signs: Signs::OfDate,
};
pub(super) const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &MONTH_NAMES,
    signs: Signs::None,
};
pub(super) const WEEKDAY: Field = Field {
    name: "day-of-week",
    min: 1,
    max: 7,
    names: &WEEKDAY_NAMES,
    signs: Signs::OfWeekday,
};
/// The limits are the crate's own.
pub(super) const YEAR: Field = Field {
    name: "year",
    min: 1970,
    max: 2100,
    names: &[],
    signs: Signs::None,
};

const MONTH_NAMES: [&[&str]; 12] = [
    &["jan", "january"],
    &["feb", "february"],
    &["mar", "march"],
    &["apr", "april"],
    &["may"],
    &["jun", "june"],
    &["jul", "july"],
    &["aug", "august"],
    &["sep", "september"],
    &["oct", "october"],
    &["nov", "november"],
    &["dec", "december"],
];
const WEEKDAY_NAMES: [&[&str]; 7] = [
    &["sun", "sunday"],
    &["mon", "monday"],
    &["tue", "tues", "tuesday"],
    &["wed", "wednesday"],
    &["thu", "thurs", "thursday"],
    &["fri", "friday"],
    &["sat", "saturday"],
];

/// One element of a field's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// `*`, `?` or `*/step`.
    Every {
        step: u32,
    },
    /// `first/step`, up to the end of the field.
    Onward {
        first: u32,
        step: u32,
    },
    /// A value, `first-last` or `first-last/step`.
    Range {
        first: u32,
        last: u32,
        step: u32,
    },
    LastDay,
    LastWorkday,
    /// The last such weekday of the month, Sunday is 1.
    LastOf(u32),
    Nth {
        weekday: u32,
        /// From 1 to 5.
        nth: usize,
    },
}

/// A parsed field.
pub(super) struct FieldText<'a> {
    field: &'static Field,
    pub(super) at: usize,
    pub(super) text: &'a str,
    pub(super) items: Vec<Item>,
}

impl FieldText<'_> {
    /// Returns the listed values, in no order and possibly twice.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        let Field { min, max, .. } = *self.field;
        let ranges = self.items.iter().filter_map(move |item| match *item {
            Item::Every { step } => Some((min, max, step)),
            Item::Onward { first, step } => Some((first, max, step)),
            Item::Range { first, last, step } => Some((first, last, step)),
            Item::LastDay | Item::LastWorkday | Item::LastOf(_) | Item::Nth { .. } => None,
        });
        ranges.flat_map(|(first, last, step)| (first..=last).step_by(step as usize))
    }

    /// Returns a mask in which bit n stands for value n. Not for years.
    pub(super) fn mask(&self) -> u64 {
        self.values().fold(0, |mask, value| mask | 1 << value)
    }
}

/// A place in an expression of ASCII characters.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut reader = Self { text, at: 0 };
        reader.skip_blanks();
        reader
    }

    /// Returns the position of the next character, counted from 1.
    pub(super) fn position(&self) -> usize {
        self.at + 1
    }

    /// True if only blanks are left after a field.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Reads one field, and the blanks behind it.
    pub(super) fn field(&mut self, field: &'static Field) -> Result<FieldText<'a>, ExpressionError> {
        let start = self.at;
        let mut items = vec![self.item(field)?];
        while self.take(',') {
            items.push(self.item(field)?);
        }
        let text = self.text[start..self.at].trim_end_matches([' ', '\t']);
        self.skip_blanks();
        if self.rest().starts_with(['-', '/']) {
            let message = format!(
                "{} has '{text}' and then '{}', which cannot follow it",
                field.name,
                self.word()
            );
            return Err(fault(self.position(), message));
        }
        Ok(FieldText {
            field,
            at: start + 1,
            text,
            items,
        })
    }

    fn item(&mut self, field: &Field) -> Result<Item, ExpressionError> {
        if self.take('*') || (field.signs != Signs::None && self.take('?')) {
            return Ok(Item::Every {
                step: self.step(field)?.unwrap_or(1),
            });
        }
        self.skip_blanks();
        let start = self.at;
        let word = self.word();
        let first = self.name_or_number();
        if let Some(sign) = self.sign(field, first, word)? {
            return Ok(sign);
        }
        let value = field.value((start + 1, first), word)?;
        self.skip_blanks();
        let named = first.starts_with(|character: char| character.is_ascii_alphabetic());
        if self.take('-') {
            self.skip_blanks();
            let at = self.position();
            let word = self.word();
            let text = self.name_or_number();
            let last = field.value((at, text), word)?;
            if named != text.starts_with(|character: char| character.is_ascii_alphabetic()) {
                let message = format!("a range has two numbers or two names, not '{first}' and '{text}'");
                return Err(fault(at, message));
            }
            if value > last {
                return Err(fault(
                    start + 1,
                    format!("the range '{first}-{text}' runs backwards"),
                ));
            }
            self.skip_blanks();
            let step = self.step(field)?.unwrap_or(1);
            return Ok(Item::Range {
                first: value,
                last,
                step,
            });
        }
        // The crate has no `MON/2`: after a name, a slash is a fault.
        let step = if named { None } else { self.step(field)? };
        Ok(match step {
            Some(step) => Item::Onward { first: value, step },
            None => Item::Range {
                first: value,
                last: value,
                step: 1,
            },
        })
    }

    /// Reads a sign that only the Quartz scheduler knows, and that the crate refuses. The caller has just read `first`.
    fn sign(&mut self, field: &Field, first: &str, word: &str) -> Result<Option<Item>, ExpressionError> {
        match field.signs {
            Signs::None => Ok(None),
            Signs::OfDate if first.eq_ignore_ascii_case("L") => Ok(Some(Item::LastDay)),
            Signs::OfDate if first.eq_ignore_ascii_case("LW") => Ok(Some(Item::LastWorkday)),
            Signs::OfDate => Ok(None),
            Signs::OfWeekday => self.weekday_sign(field, first, word),
        }
    }

    fn weekday_sign(
        &mut self,
        field: &Field,
        first: &str,
        word: &str,
    ) -> Result<Option<Item>, ExpressionError> {
        if self.rest().starts_with('#') {
            let at = self.at + 1 - first.len();
            let weekday = field.value((at, first), word)?;
            self.at += 1;
            let (at, word) = (self.position(), self.word());
            let nth = read_number(self.name_or_number()).filter(|nth| (1..=5).contains(nth));
            let nth = nth.ok_or_else(|| {
                fault(
                    at,
                    format!(
                        "after '#' stands the occurrence in the month, 1 to 5, not {}",
                        shown(word)
                    ),
                )
            })?;
            return Ok(Some(Item::Nth {
                weekday,
                nth: nth as usize,
            }));
        }
        // FRIL is one word, 6L a number and a word.
        if let Some(weekday) = first.strip_suffix(['L', 'l']).and_then(|name| field.named(name)) {
            return Ok(Some(Item::LastOf(weekday)));
        }
        let start = self.at;
        if read_number(first).is_some() && self.name_or_number().eq_ignore_ascii_case("L") {
            let weekday = field.value((start + 1 - first.len(), first), word)?;
            return Ok(Some(Item::LastOf(weekday)));
        }
        self.at = start;
        Ok(None)
    }

    fn step(&mut self, field: &Field) -> Result<Option<u32>, ExpressionError> {
        if !self.take('/') {
            return Ok(None);
        }
        self.skip_blanks();
        let (at, word) = (self.position(), self.word());
        let step = read_number(self.name_or_number()).filter(|step| (1..=field.max).contains(step));
        let Field { name, max, .. } = field;
        let step = step.ok_or_else(|| {
            fault(
                at,
                format!("a step of {name} is from 1 to {max}, not {}", shown(word)),
            )
        })?;
        self.skip_blanks();
        Ok(Some(step))
    }

    /// Reads the digits or the letters that come next. Empty if there are none.
    fn name_or_number(&mut self) -> &'a str {
        let rest = self.rest();
        let same = match rest.bytes().next() {
            Some(byte) if byte.is_ascii_digit() => u8::is_ascii_digit,
            _ => u8::is_ascii_alphabetic,
        };
        let length = rest.bytes().take_while(same).count();
        self.at += length;
        &rest[..length]
    }

    /// Returns the next word, for error messages.
    fn word(&self) -> &'a str {
        self.rest().split([' ', '\t', ',']).next().unwrap_or_default()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, character: char) -> bool {
        let found = self.rest().starts_with(character);
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t']).len();
    }
}

impl Field {
    fn named(&self, text: &str) -> Option<u32> {
        let index = self
            .names
            .iter()
            .position(|names| names.iter().any(|name| text.eq_ignore_ascii_case(name)))?;
        Some(self.min + index as u32)
    }

    /// Reads a number or a name. `word` is the word that contains it.
    fn value(&self, (at, text): Piece<'_>, word: &str) -> Result<u32, ExpressionError> {
        let number = || read_number(text).filter(|value| (self.min..=self.max).contains(value));
        self.named(text).or_else(number).ok_or_else(|| {
            let Field { name, min, max, .. } = self;
            let names = match self.names {
                [first, .., last] => format!(", {} to {}", first[0].to_uppercase(), last[0].to_uppercase()),
                _ => String::new(),
            };
            let signs = match self.signs {
                Signs::None => "",
                Signs::OfDate => ", L or LW",
                Signs::OfWeekday => " (Sunday is 1), 6L or 6#3",
            };
            let found = shown(if text.is_empty() { word } else { text });
            fault(
                at,
                format!("{name} takes {min} to {max}{names}{signs}, not {found}"),
            )
        })
    }
}

fn shown(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        format!("'{text}'")
    }
}
