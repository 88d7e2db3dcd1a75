//! Compares the `cron` crate with this module, in UTC: both must accept the same expressions, and find the same slots.
//!
//! Valid and mutilated expressions come in equal parts. Every difference must belong to one of the [`Class`]es. With
//! other zones than UTC the two differ by design (cron's rule for clock changes); `quartz/tests.rs` covers that.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

use super::Quartz;
use crate::schedule::zone::Zone;

/// The allowed results of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Both accept it, with the same slots.
    SameSlots,
    /// Both refuse it.
    SameRefusal,
    /// The crate accepts a date that does not exist, or not in the listed years, and then never finds a slot.
    NeverComes,
    /// The crate reads line breaks as blanks.
    LineBreak,
    /// It has signs that only the Quartz scheduler knows.
    LastOrNth,
    /// The crate's `*` ends with the year 2100.
    After2100,
}

#[test]
fn crate_and_we_take_the_same_and_find_the_same_slots() {
    let counts = compare(4_000, 1);

    // If the generator made only nonsense, both would refuse every expression, and the test would show nothing.
    assert!(counts[&Class::SameSlots] > 1_000, "{counts:?}");
    assert!(counts[&Class::SameRefusal] > 500, "{counts:?}");
    assert!(counts[&Class::LastOrNth] > 50, "{counts:?}");
}

#[test]
#[ignore = "takes minutes: scripts/schedule-diff quartz"]
fn crate_and_we_take_the_same_and_find_the_same_slots_of_two_million() {
    let counts = compare(2_000_000, 2);

    println!("{counts:#?}");
}

fn compare(expressions: usize, seed: u64) -> BTreeMap<Class, usize> {
    let mut random = Random(seed);
    let mut counts = BTreeMap::new();
    for _ in 0..expressions {
        let mut expression = expression(&mut random);
        if random.one_in(2) {
            expression = mutilated(&mut random, expression);
        }
        let after = random.instant();
        match difference(&expression, after) {
            Ok(class) => *counts.entry(class).or_default() += 1,
            Err(what) => panic!("{expression:?} after {after}: {what}"),
        }
    }
    counts
}

/// Compares both readings of an expression. The error describes a difference without an allowed class.
fn difference(expression: &str, after: DateTime<Utc>) -> Result<Class, String> {
    let (theirs, ours) = (::cron::Schedule::from_str(expression), Quartz::parse(expression));
    let (theirs, ours) = match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(_), Err(_)) => return Ok(Class::SameRefusal),
        (Err(_), Ok(_)) if expression.contains(['L', 'l', '#']) => return Ok(Class::LastOrNth),
        (Err(error), Ok(_)) => return Err(format!("only the crate refuses: {error}")),
        (Ok(_), Err(error)) if error.message.starts_with("'\\n'") => return Ok(Class::LineBreak),
        (Ok(theirs), Err(error)) => {
            let slot = theirs.after(&start_of_all()).next();
            return match slot {
                None if error.message.starts_with("no date matches") => Ok(Class::NeverComes),
                _ => Err(format!(
                    "only we refuse, {error}; the crate's first slot is {slot:?}"
                )),
            };
        }
    };

    let mut slot = after;
    for expected in theirs.after(&after).map(Some).chain([None]).take(12) {
        let found = ours.next_after(slot, Zone::utc());
        if found != expected {
            return match found {
                Some(found) if expected.is_none() && found >= end_of_all() => Ok(Class::After2100),
                _ => Err(format!("after {slot} the crate has {expected:?}, we {found:?}")),
            };
        }
        slot = found.unwrap_or(slot);
    }
    Ok(Class::SameSlots)
}

fn start_of_all() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH - TimeDelta::seconds(1)
}

fn end_of_all() -> DateTime<Utc> {
    "2101-01-01T00:00:00Z".parse().expect("an instant")
}

/// SplitMix64 with a fixed seed, so that a failing case is repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn within(&mut self, min: usize, max: usize) -> usize {
        min + self.below(max - min + 1)
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Returns an instant in the crate's years: often just before a boundary, and with a fraction of a second.
    fn instant(&mut self) -> DateTime<Utc> {
        let seconds = self.below(130 * 366 * 86_400) as i64;
        let unit = [1, 60, 3_600, 86_400, 366 * 86_400][self.below(5)];
        let instant = DateTime::from_timestamp(seconds - seconds % unit, 0).expect("in range");
        instant + [0, -1, -500_000_000, 999_999_999].map(TimeDelta::nanoseconds)[self.below(4)]
    }
}

/// Numbers that a field has, and some of its names.
const FIELDS: [(usize, usize, &[&str]); 7] = [
    (0, 59, &[]),
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["Jan", "FEB", "march", "may", "June", "sep", "DECEMBER"]),
    (
        1,
        7,
        &["SUN", "mon", "Tues", "wednesday", "THURS", "Friday", "sat"],
    ),
    (1970, 2100, &[]),
];

/// Returns an expression as a person might write it, sometimes with an error.
fn expression(random: &mut Random) -> String {
    if random.one_in(40) {
        return random
            .pick(&[
                "@hourly",
                " @daily",
                "@weekly ",
                "@monthly",
                "@yearly",
                "@annually",
                "@Daily",
                "@",
            ])
            .to_owned();
    }
    let count = if random.one_in(30) {
        random.within(4, 8)
    } else {
        random.within(6, 7)
    };
    let fields: Vec<String> = (0..count).map(|index| field(random, index.min(6))).collect();
    let blanks = if random.one_in(30) {
        random.pick(&["", "  ", "\t", "\n"])
    } else {
        " "
    };
    fields.join(blanks)
}

fn field(random: &mut Random, index: usize) -> String {
    let any = if (index == 3 || index == 5) && random.one_in(2) {
        "?"
    } else {
        "*"
    };
    if random.one_in(3) {
        return any.to_owned();
    }
    let length = if random.one_in(2) { 1 } else { random.within(1, 4) };
    let items: Vec<String> = (0..length).map(|_| item(random, index, any)).collect();
    let comma = if random.one_in(20) {
        random.pick(&[", ", " ,", " , "])
    } else {
        ","
    };
    items.join(comma)
}

fn item(random: &mut Random, index: usize, any: &str) -> String {
    let (min, max, names) = FIELDS[index];
    let blank = if random.one_in(40) { " " } else { "" };
    let longest_step = if random.one_in(20) {
        max + 1
    } else {
        (max - min) / 2
    };
    let step = random.within(1, longest_step);
    let [mut low, mut high] = [random.within(min, max), random.within(min, max)];
    if low > high && !random.one_in(20) {
        (low, high) = (high, low);
    }
    if random.one_in(60) {
        low = [min.saturating_sub(1), max + 1][random.below(2)];
    }
    match random.below(12) {
        0 | 1 => format!("{any}/{blank}{step}"),
        2 | 3 => format!("{low}{blank}-{blank}{high}"),
        4 => format!("{low}-{high}{blank}/{step}"),
        5 => format!("{low}{blank}/{blank}{step}"),
        6 | 7 if !names.is_empty() => {
            let name = random.pick(names);
            match random.below(20) {
                0 => format!("{name}/{step}"),
                1 => format!("{name}-{high}"),
                2 => format!("{low}-{name}"),
                _ => name.to_owned(),
            }
        }
        8 if !names.is_empty() => {
            let (first, last) = (random.below(names.len()), random.below(names.len()));
            let range = format!("{}{blank}-{}", names[first.min(last)], names[first.max(last)]);
            if random.one_in(2) {
                range
            } else {
                format!("{range}/{step}")
            }
        }
        9 if index == 3 && random.one_in(3) => random.pick(&["L", "LW", "l", "15W", "L-3"]).to_owned(),
        9 if index == 5 && random.one_in(3) => random
            .pick(&["6L", "friL", "2#1", "MON#5", "7#6", "L"])
            .to_owned(),
        _ => format!(
            "{low:0width$}",
            width = [1, 2, 9][random.below(20).saturating_sub(17)]
        ),
    }
}

fn mutilated(random: &mut Random, expression: String) -> String {
    const SIGNS: &[u8] = b"0123456789*?/-,LW#@ \tSUNMONjanABC.\n";
    let mut bytes = expression.into_bytes();
    for _ in 0..random.within(1, 3) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 | 1 => bytes.insert(at, SIGNS[random.below(SIGNS.len())]),
            2 | 3 if at < bytes.len() => {
                bytes.remove(at);
            }
            4 => bytes.truncate(at),
            _ if at < bytes.len() => bytes[at] = SIGNS[random.below(SIGNS.len())],
            _ => bytes.push(b' '),
        }
    }
    String::from_utf8(bytes).expect("ASCII")
}
