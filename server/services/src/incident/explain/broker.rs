//! Explains why a broker is down.

use chrono::{DateTime, Utc};
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Fact, Repair};
use deadbeat_store::celery::broker::Broker;

use super::{Explanation, clock};

/// Explains that a broker cannot be reached, or refuses messages.
#[must_use]
pub fn of_broker(broker: &Broker, now: DateTime<Utc>) -> Explanation {
    let said = |field: &str| broker.sample.as_ref()?.get(field)?.as_str().map(str::to_owned);
    let transport = said("transport").unwrap_or_else(|| "broker".to_owned());
    let who = said("worker").unwrap_or_else(|| "A worker".to_owned());
    let refusal = said("refused_why").map(|why| (said("refused_command").unwrap_or_default(), why));
    let mut evidence = vec![Fact {
        at: broker.state.since,
        fact: match &refusal {
            Some((command, why)) => format!("{who} reached it, and was refused {command}: {why}"),
            None => format!(
                "{who} could not reach it{}.",
                said("error")
                    .map(|error| format!(": {error}"))
                    .unwrap_or_default()
            ),
        },
    }];
    if let Some(at) = broker.sampled_at {
        evidence.push(Fact {
            at: Some(at),
            fact: "The last attempt failed, too.".to_owned(),
        });
    }
    let see = "See on its host whether it runs and answers; its memory and its disk may be full.";
    let command = match transport.as_str() {
        "redis" | "rediss" if refusal.is_some() => Some(Command::new("redis-cli info memory replication")),
        "amqp" | "amqps" | "py-amqp" if refusal.is_some() => {
            Some(Command::new("rabbitmq-diagnostics alarms"))
        }
        "redis" | "rediss" => Some(Command::new("redis-cli ping")),
        "amqp" | "amqps" | "py-amqp" => Some(Command::new("rabbitmq-diagnostics check_running")),
        _ => None,
    };
    Explanation {
        summary: match refusal {
            Some((command, _)) if command == "basic.publish" => format!(
                "The broker of {} blocks publishers since {}: it accepts no messages, because an alarm of its memory or its disk is on.",
                broker.app,
                clock(broker.state.since.unwrap_or(now))
            ),
            Some((command, _)) => format!(
                "The broker of {} refuses messages since {}: it answers, and rejects commands that write ({command}).",
                broker.app,
                clock(broker.state.since.unwrap_or(now))
            ),
            None => format!(
                "The broker of {} is down since {}: no message can be sent or received.",
                broker.app,
                clock(broker.state.since.unwrap_or(now))
            ),
        },
        evidence,
        repair: vec![match command {
            Some(command) => Repair::command(see, command),
            None => Repair::advice(see),
        }],
    }
}
