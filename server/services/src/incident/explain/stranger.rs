//! Explains that runs vanish into workers that do not report.

use chrono::{DateTime, Utc};
use deadbeat_domain::celery::worker::stranger::Stranger;
use deadbeat_domain::incident::Repair;
use deadbeat_domain::incident::command::Command;
use deadbeat_store::celery::queue::Queue;

use super::{Explanation, fact, then};

/// The most workers that an incident names. It counts the others.
const NAMED: usize = 5;

/// Explains that workers consume a queue and do not report.
#[must_use]
pub fn of_strangers(queue: &Queue, strangers: &[Stranger], now: DateTime<Utc>) -> Explanation {
    let name = &queue.name;
    let found: Vec<&Stranger> = strangers.iter().filter(|one| one.takes_from(name, now)).collect();
    let who = match found[..] {
        [one] => format!("Worker {}", one.worker),
        _ => format!("{} workers", found.len().max(1)),
    };
    let plural = found.len() > 1;
    let mut evidence: Vec<_> = found
        .iter()
        .take(NAMED)
        .map(|one| {
            then(
                one.seen_at,
                format!(
                    "Worker {} answered that it consumes {}. It sends no reports.",
                    one.worker,
                    one.queues.join(", ")
                ),
            )
        })
        .collect();
    if found.len() > NAMED {
        evidence.push(fact(format!("There are {} such workers.", found.len())));
    }
    evidence.push(then(
        queue.seen_at,
        format!(
            "Runs that Beat sent to {name} are no longer in the queue, and no reporting worker has received them."
        ),
    ));
    let celery = || Command::new("celery -A").arg(&queue.app);
    let mut repair = vec![Repair::advice(
        "Start it with the SDK: deadbeat.init(app) where its app is made, and DEADBEAT_URL and DEADBEAT_KEY in its environment. Its log has a warning \
         that says what is missing.",
    )];
    for one in found.iter().take(NAMED) {
        repair.push(Repair::command(
            format!("Or stop {}, if it is not meant to run.", one.worker),
            celery().words("control shutdown -d").item(&one.worker),
        ));
        repair.push(Repair::command(
            format!("Or have {} leave this queue.", one.worker),
            celery()
                .words("control cancel_consumer")
                .arg(name)
                .words("-d")
                .item(&one.worker),
        ));
    }
    Explanation {
        summary: format!(
            "{who} {} messages from queue {name} and {} not report: Deadbeat cannot know what happens to these runs.",
            if plural { "take" } else { "takes" },
            if plural { "do" } else { "does" }
        ),
        evidence,
        repair,
    }
}
