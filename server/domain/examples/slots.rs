//! The next slots of schedules, a JSON line each: what the tests of `tests/schedules` compare with other programs.
//!
//! ```sh
//! echo '{"schedule": {"kind": "cron", "expression": "0 3 * * *"}, "after": "2026-03-29T00:00:00Z", "count": 2}' |
//!     cargo run --quiet --package deadbeat-domain --example slots
//! ```
//!
//! An answer is `{"slots": ["2026-03-29T03:00:00Z", …]}`, each slot computed from the one before and fewer than asked for when the
//! schedule ends, or `{"error": {"field": "/expression", "position": 3, "message": "…"}}`. The line `{"database": true}` asks for
//! the release of the time zone database: `{"database": "2026e"}`. A line that asks for neither ends the program, exit status 1.

use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use deadbeat_domain::schedule::Schedule;
use deadbeat_domain::schedule::zone::database_version;
use serde_json::{Value, json};

fn main() -> ExitCode {
    match answer_all(io::stdin().lock(), BufWriter::new(io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slots: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_all(questions: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    for (number, question) in (1..).zip(questions.lines()) {
        let answer = answer(&question?).map_err(|message| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("line {number}: {message}"))
        })?;
        serde_json::to_writer(&mut answers, &answer)?;
        answers.write_all(b"\n")?;
    }
    answers.flush()
}

fn answer(question: &str) -> Result<Value, String> {
    let question: Value = serde_json::from_str(question).map_err(|error| error.to_string())?;
    if question["database"] == true {
        return Ok(json!({"database": database_version()}));
    }
    let after = question["after"].as_str().ok_or("after is missing")?;
    let after: DateTime<Utc> = after
        .parse()
        .map_err(|error| format!("after is '{after}': {error}"))?;
    let count = question["count"].as_u64().ok_or("count is missing")?;
    let schedule = match Schedule::from_json(&question["schedule"]) {
        Ok(schedule) => schedule,
        Err(error) => {
            let fault = json!({"field": error.field, "position": error.position, "message": error.message});
            return Ok(json!({"error": fault}));
        }
    };
    let mut slots = Vec::new();
    let mut last = after;
    for _ in 0..count {
        let Some(slot) = schedule.next_after(last) else {
            break;
        };
        slots.push(slot.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        last = slot;
    }
    Ok(json!({"slots": slots}))
}
