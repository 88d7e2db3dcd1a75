//! The texts of incidents: summary, evidence and repair. Each kind of subject has its own file.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_domain::text::visible;

mod beat;
mod beats;
mod broker;
mod crash_loop;
mod host;
mod load;
mod monitor;
mod named;
mod orphan;
mod queue;
mod result_backend;
mod stranger;
mod worker;

pub use beat::{of_beat, of_emptied, of_flood};
pub use beats::of_several;
pub use broker::of_broker;
pub use crash_loop::of_crash_loop;
pub use host::of_host;
pub use monitor::of_monitor;
pub use named::of_named;
pub use queue::of_queue;
pub use result_backend::of_result_backend;
pub use stranger::of_strangers;
pub use worker::of_worker;

/// The texts of an incident. Names in them may come from rows of an older version: see [`Explanation::visible`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Facts with times.
    pub evidence: Vec<Fact>,
    /// Repairs, the most likely first.
    pub repair: Vec<Repair>,
}

impl Explanation {
    /// Makes the texts safe to read: a character that could control a terminal or hide text becomes an escape.
    /// Commands are safe already.
    #[must_use]
    pub fn visible(self) -> Self {
        let shown = |text: String| match visible(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(shown) => shown,
        };
        Self {
            summary: shown(self.summary),
            evidence: self
                .evidence
                .into_iter()
                .map(|fact| Fact {
                    fact: shown(fact.fact),
                    ..fact
                })
                .collect(),
            repair: self
                .repair
                .into_iter()
                .map(|repair| Repair {
                    text: shown(repair.text),
                    ..repair
                })
                .collect(),
        }
    }
}

/// Makes a fact with its time.
fn then(at: DateTime<Utc>, fact: impl Into<String>) -> Fact {
    Fact {
        at: Some(at),
        fact: fact.into(),
    }
}

/// Makes a fact without a time.
fn fact(fact: impl Into<String>) -> Fact {
    Fact {
        at: None,
        fact: fact.into(),
    }
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Formats a duration: `90 s`, `5 min`, `2 h`, `3 d`.
fn words(span: TimeDelta) -> String {
    let seconds = span.num_milliseconds() as f64 / 1000.0;
    match seconds {
        s if s >= 172_800.0 && s % 86_400.0 == 0.0 => format!("{} d", s / 86_400.0),
        s if s >= 7_200.0 && s % 3_600.0 == 0.0 => format!("{} h", s / 3_600.0),
        s if s >= 120.0 && s % 60.0 == 0.0 => format!("{} min", s / 60.0),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests;
