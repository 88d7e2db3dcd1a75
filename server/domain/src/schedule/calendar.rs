//! systemd's calendar expressions: `OnCalendar=` of a timer. Each line has one expression, as in a unit that has the
//! setting several times.
//!
//! The grammar is that of systemd.time(7) in systemd 252, and the additions that only its parser accepts (`Mon-Fri`,
//! `anually`, `5..5`). The rules for clock changes are systemd's, too, measured with `systemd-analyze calendar` in some
//! twenty zones:
//! * Times are matched on the wall clock.
//! * A skipped time does not come that day.
//! * A repeated time comes at its first showing, be it `01:30` or `*:0/10`.
//!
//! A timer that is *started* within the second showing of an hour runs in that showing as well. Those times are no
//! slots here, so that the slots do not depend on the instant at which they are computed. `docs/schedules.md` lists
//! every difference.

mod line;
mod overrun;
#[cfg(test)]
mod tests;
mod values;

use chrono::{DateTime, Datelike, TimeDelta, Utc};

use self::overrun::Overruns;
use crate::schedule::expression::{ExpressionError, check_characters, fault};
use crate::schedule::wall::{LAST_YEAR, SearchWindow, WallTimes};
use crate::schedule::zone::{Reading, Zone};

/// The longest text that is read, in characters, with its line ends.
pub const MAX_TEXT_CHARS: usize = 1_000;
/// The longest line that is read, in characters.
pub const MAX_LINE_CHARS: usize = 200;
/// The most lines with an expression. A timer unit seldom has three.
pub const MAX_LINES: usize = 10;

/// One or more calendar expressions, one on each line. Each of them comes at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    expression: String,
    zone: Zone,
    lines: Vec<Line>,
}

/// The wall times of one line, and the zone whose clock it means.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    times: WallTimes,
    overruns: Overruns,
    zone: Zone,
}

impl Calendar {
    /// Reads the lines. A line that names no zone gets `zone`.
    ///
    /// # Errors
    /// If systemd refuses a line, a line has fractions of a second or comes in no year, or the text exceeds a limit.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, ExpressionError> {
        if text.chars().nth(MAX_TEXT_CHARS).is_some() {
            return Err(fault(
                MAX_TEXT_CHARS + 1,
                format!("calendar expressions have at most {MAX_TEXT_CHARS} characters together"),
            ));
        }
        let several = text.trim().contains('\n');
        let mut lines = Vec::new();
        let mut expressions = Vec::new();
        // All lines before this one are ASCII, so bytes are characters.
        let mut start = 0;
        for (number, whole) in (1..).zip(text.split('\n')) {
            // A form in a web page ends its lines with CR LF.
            let content = whole.strip_suffix('\r').unwrap_or(whole);
            let in_text = |error: ExpressionError| {
                let ExpressionError { position, message } = error;
                let place = if several {
                    format!("line {number}: ")
                } else {
                    String::new()
                };
                fault(start + position, place + &message)
            };
            check_characters(content, MAX_LINE_CHARS).map_err(in_text)?;
            let expression = content.trim();
            if !expression.is_empty() {
                let indent = content.len() - content.trim_start().len();
                let indented = |error: ExpressionError| fault(indent + error.position, error.message);
                if lines.len() == MAX_LINES {
                    return Err(in_text(fault(
                        indent + 1,
                        format!("there are at most {MAX_LINES} expressions"),
                    )));
                }
                lines.push(line::read(expression, zone).map_err(|error| in_text(indented(error)))?);
                expressions.push(expression);
            }
            start += whole.len() + 1;
        }
        if lines.is_empty() {
            return Err(fault(
                1,
                "there is no expression; one is like 'Mon..Fri 02:30' or '*-*-1 00:00:00 UTC'",
            ));
        }
        Ok(Self {
            expression: expressions.join("\n"),
            zone,
            lines,
        })
    }

    /// Returns the lines as written, without blanks around them and without empty ones.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Returns the zone of the lines that name no zone.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// Returns the next slot of any line strictly after `after`. None: there is none within 50 years, or after the last listed
    /// year.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let window = SearchWindow::after(after)?;
        self.lines.iter().filter_map(|line| line.next_in(&window)).min()
    }
}

impl Line {
    /// True if the line ever comes, in the past or the future, so that the answer does not depend on today's date.
    /// Example: `Sun 2007..2199-3-8..14 02:30 America/New_York` never comes, because the zone's clock skips each of its
    /// times.
    fn comes(&self) -> bool {
        let always = SearchWindow {
            first: DateTime::UNIX_EPOCH - TimeDelta::days(1),
            last_year: LAST_YEAR,
        };
        self.next_in(&always).is_some()
    }

    /// Returns the first slot in the window by the rules above. If a time has no slot, skips the whole gap at once, since a skipped hour has 3,600
    /// seconds. The window limits the search, because listed years reach further.
    fn next_in(&self, window: &SearchWindow) -> Option<DateTime<Utc>> {
        let zone = self.zone;
        let mut wall = zone.wall_at(window.first);
        loop {
            wall = self.times.at_or_after(wall, window.last_year)?;
            let resume = match (self.overruns.resume(&self.times, wall), zone.read(wall)?) {
                (Some(later), _) => later,
                (None, Reading::Once(slot) | Reading::Twice(slot, _)) if slot >= window.first => {
                    return Some(slot);
                }
                (None, Reading::Once(_)) => wall,
                // The search began in the second showing. The next new times come after the point where the clock was
                // set back.
                (None, Reading::Twice(first, second)) => zone
                    .first_change(first, second)
                    .map_or(wall, |change| wall + (change - first)),
                (None, Reading::Skipped { gap_end, .. }) => zone.wall_at(gap_end),
            };
            wall = resume.max(wall + TimeDelta::seconds(1));
            if wall.year() > window.last_year {
                return None;
            }
        }
    }
}
