//! The values of one component of a date or a time: `*`, or a list of `n`, `n/step`, `a..b` and `a..b/step`.

use crate::schedule::expression::{ExpressionError, Piece, fault, pieces, read_number};

const INT_MAX: u32 = i32::MAX as u32;

/// The name and the values of a component of a date or a time.
pub(super) struct Component {
    name: &'static str,
    min: u32,
    max: u32,
    role: Role,
}

#[derive(PartialEq, Eq)]
enum Role {
    /// May have two digits.
    Year,
    /// Counts backwards, so its steps lead down to 1.
    DayFromEnd,
    /// systemd counts them in microseconds, and accepts fractions.
    Second,
    Other,
}

/// systemd's own search ends in 2199.
pub(super) const YEAR: Component = Component {
    name: "year",
    min: 1970,
    max: 2199,
    role: Role::Year,
};
pub(super) const MONTH: Component = Component {
    name: "month",
    min: 1,
    max: 12,
    role: Role::Other,
};
pub(super) const DAY: Component = Component {
    name: "day",
    min: 1,
    max: 31,
    role: Role::Other,
};
/// The least number of days of a month, so that every month has the day.
pub(super) const DAY_FROM_END: Component = Component {
    name: "day from the end of the month",
    min: 1,
    max: 28,
    role: Role::DayFromEnd,
};
pub(super) const HOUR: Component = Component {
    name: "hour",
    min: 0,
    max: 23,
    role: Role::Other,
};
pub(super) const MINUTE: Component = Component {
    name: "minute",
    min: 0,
    max: 59,
    role: Role::Other,
};
pub(super) const SECOND: Component = Component {
    name: "second",
    min: 0,
    max: 59,
    role: Role::Second,
};

/// `first`, `first + step` and so on up to `last`.
pub(super) struct Span {
    first: u32,
    last: u32,
    step: u32,
    /// True for a step without an end.
    is_open: bool,
}

/// The values that a component names.
pub(super) struct Values {
    /// Bit n stands for value n.
    pub(super) mask: u64,
    /// The value in the next round at which a step without an end arrives; 0 if there is none. See [`super::overrun`].
    pub(super) overrun: u32,
}

impl Span {
    fn closed(first: u32, last: u32, step: u32) -> Self {
        Self {
            first,
            last,
            // systemd reads 5..7/9 as just 5.
            step: if first == last { 1 } else { step },
            is_open: false,
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        (self.first..=self.last).step_by(self.step as usize)
    }
}

impl Component {
    /// Returns the largest number that systemd can hold. It refuses larger ones even if a step makes them meaningless.
    fn largest_number(&self) -> u32 {
        match self.role {
            Role::Second => INT_MAX / 1_000_000,
            _ => INT_MAX,
        }
    }

    /// Reads the listed spans. None for `*`.
    pub(super) fn read_spans(&self, (at, text): Piece<'_>) -> Result<Option<Vec<Span>>, ExpressionError> {
        if text == "*" {
            return Ok(None);
        }
        let items: Vec<Piece<'_>> = pieces(at, text, |character| character == ',').collect();
        let spans = items
            .iter()
            .map(|item| self.read_span(*item))
            .collect::<Result<Vec<_>, _>>()?;
        if self.role == Role::DayFromEnd {
            self.check_list(&items, &spans)?;
        }
        Ok(Some(spans))
    }

    /// systemd lowers its limit of 28 by three with each further value of a list, from the lowest value up: it refuses
    /// `~3,27`. That is an error of systemd, but no timer can have an expression that systemd refuses.
    fn check_list(&self, items: &[Piece<'_>], spans: &[Span]) -> Result<(), ExpressionError> {
        let mut ascending: Vec<_> = spans
            .iter()
            .zip(items)
            .map(|(span, item)| {
                let is_range = span.first < span.last && item.1.contains("..");
                let start = if is_range { span.first } else { span.last };
                ((start, is_range, span.last, span.step, span.first), *item)
            })
            .collect();
        ascending.sort_unstable();
        ascending.dedup_by_key(|(span, _)| *span);
        for (limit, ((_, _, last, ..), (at, item))) in (1..=self.max).rev().step_by(3).zip(ascending) {
            if last > limit {
                let message = format!(
                    "systemd takes days to {limit} here, not '{item}': 28, less 3 for each lower one listed"
                );
                return Err(fault(at, message));
            }
        }
        Ok(())
    }

    /// Reads values into a mask. Not for years, which do not fit into it.
    pub(super) fn read_values(&self, piece: Piece<'_>) -> Result<Values, ExpressionError> {
        let spans = self
            .read_spans(piece)?
            .unwrap_or_else(|| vec![Span::closed(self.min, self.max, 1)]);
        let values = spans.iter().flat_map(Span::values);
        let mask = values.fold(0, |mask, value| mask | 1 << value);
        // systemd does not search beyond the very last value, except for the fractions of its second.
        let last = match self.role {
            Role::DayFromEnd => self.min,
            _ => self.max,
        };
        let reaches_last = self.role != Role::Second && mask & 1 << last != 0;
        let open = spans.iter().filter(|span| span.is_open && !reaches_last);
        let overrun = open.map(|span| self.overrun(span)).min().unwrap_or(0);
        Ok(Values { mask, overrun })
    }

    /// Returns the first value of an open span in the next round. Counts days as in January.
    fn overrun(&self, span: &Span) -> u32 {
        match self.role {
            Role::DayFromEnd => span.step + 1 - span.first,
            _ => {
                let last = span.first + (self.max - span.first) / span.step * span.step;
                last + span.step - self.max - 1 + self.min
            }
        }
    }

    fn read_span(&self, (at, item): Piece<'_>) -> Result<Span, ExpressionError> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some((at + range.len() + 1, step))),
            None => (item, None),
        };
        let (first, last) = match range.split_once("..") {
            Some((first, last)) => (first, Some((at + first.len() + 2, last))),
            None => (range, None),
        };
        let first = self.read_first((at, first), range, step.is_some())?;
        let end = last.map(|piece| self.read_last(piece)).transpose()?.zip(last);
        let repeat = step.map(|piece| self.read_step(piece)).transpose()?.zip(step);
        match (end, repeat) {
            (None, None) => Ok(Span::closed(first, first, 1)),
            (None, Some((step, (step_at, _)))) => self.repeated(first, step, step_at),
            (Some((last, _)), _) if last < first => {
                Err(fault(at, format!("the range '{range}' runs backwards")))
            }
            (Some((last, _)), None) if self.role == Role::Second && last == first => {
                let message = format!("a range of seconds has two ends, write {first} instead of '{range}'");
                Err(fault(at, message))
            }
            (Some((last, last_piece)), repeat) => {
                let step = repeat.map_or(1, |(step, _)| step);
                // systemd checks only the last value that the step reaches: it accepts 5..99/100, which is 5.
                let last = last - (last - first) % step;
                if last > self.max {
                    return Err(self.not_a_value(last_piece));
                }
                Ok(Span::closed(first, last, step))
            }
        }
    }

    /// Reads `n/step`, which runs to the end of the round, or of the month.
    fn repeated(&self, first: u32, step: u32, step_at: usize) -> Result<Span, ExpressionError> {
        let (room, name) = match self.role {
            Role::DayFromEnd => (first - self.min, "day of the month"),
            _ => (self.max - first, self.name),
        };
        if step > room {
            let message = format!("no {name} comes {step} after {first}; the step has no effect, so omit it");
            return Err(fault(step_at, message));
        }
        let (first, last) = match self.role {
            Role::DayFromEnd => ((first - 1) % step + 1, first),
            _ => (first, self.max),
        };
        Ok(Span {
            first,
            last,
            step,
            is_open: true,
        })
    }

    fn read_first(&self, piece: Piece<'_>, range: &str, stepped: bool) -> Result<u32, ExpressionError> {
        let (at, text) = piece;
        if text.starts_with('*') {
            let instead = match stepped {
                true if range == "*" => format!("; with a step it is {}/n", self.min),
                _ => String::new(),
            };
            return Err(fault(
                at,
                format!("'*' stands alone for every {}{instead}", self.name),
            ));
        }
        self.check_fraction(piece)?;
        let number = read_number(text).map(|number| self.full_year(number));
        number
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| self.not_a_value(piece))
    }

    /// Reads the end of a range. The step decides whether the end is a value, and is read later.
    fn read_last(&self, piece: Piece<'_>) -> Result<u32, ExpressionError> {
        self.check_fraction(piece)?;
        let number = read_number(piece.1).filter(|number| *number <= self.largest_number());
        let number = number.ok_or_else(|| self.not_a_value(piece))?;
        Ok(self.full_year(number))
    }

    fn read_step(&self, piece: Piece<'_>) -> Result<u32, ExpressionError> {
        self.check_fraction(piece)?;
        let (at, text) = piece;
        let largest = self.largest_number();
        read_number(text)
            .filter(|step| (1..=largest).contains(step))
            .ok_or_else(|| {
                let found = found(text);
                fault(
                    at,
                    format!("a step is a whole number from 1 to {largest}, not {found}"),
                )
            })
    }

    /// Completes a year of two digits. systemd reads 12 as 2012 and 89 as 1989.
    fn full_year(&self, number: u32) -> u32 {
        match number {
            0..70 if self.role == Role::Year => number + 2000,
            70..100 if self.role == Role::Year => number + 1900,
            _ => number,
        }
    }

    fn check_fraction(&self, (at, text): Piece<'_>) -> Result<(), ExpressionError> {
        match text.find('.') {
            Some(point) if self.role == Role::Second && read_number(&text[..point]).is_some() => {
                let message =
                    format!("'{text}' has a fraction; systemd takes one, but seconds are whole here");
                Err(fault(at + point, message))
            }
            _ => Ok(()),
        }
    }

    fn not_a_value(&self, (at, text): Piece<'_>) -> ExpressionError {
        let Self { name, min, max, .. } = self;
        let hint = match text.split_once('-') {
            Some((first, last)) if read_number(first).is_some() && read_number(last).is_some() => {
                format!("; a range is written {first}..{last}")
            }
            _ => String::new(),
        };
        fault(
            at,
            format!("{name} takes {min} to {max}, not {}{hint}", found(text)),
        )
    }
}

pub(super) fn found(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        format!("'{text}'")
    }
}
