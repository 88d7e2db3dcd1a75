//! Messages about a made-up project. Previews show them, and the server tries the templates of webhooks with them.
//!
//! The words are those of real incidents: the same functions explain them (`incident/explain`), and the outbox composes the messages, from
//! rows of a made-up project (`shop`). The clock and the ids are constants, so an example never changes.

pub mod preview;
mod scene;
mod shop;

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::message::{
    self, BlindNotice, ChannelDisabled, Confirmation, DisabledChannel, Event, Message, Phase, Spell,
};
use deadbeat_domain::ids::{ChannelId, IncidentId};
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{LONG_DOWN, Repair, SubjectKind};
use deadbeat_domain::limits;
use deadbeat_store::incident::Incident;

use crate::Site;
use crate::alert::outbox::{IncidentAlert, compose};
use scene::on_scene;

/// The address of the server that the examples come from.
const SITE: &str = "https://deadbeat.example.org";
/// A name with the characters that the markups and formats must escape.
const ODD_NAME: &str = "\"nightly\" <b>& 'x'\\ {{ 1 }} ${HOME} ../ 100 % ü 日本 🚀 */ --> ]]>";

/// Returns an example of this kind of message. If the kind is about an incident, the incident has this cause.
#[must_use]
pub fn of(alert: Alert, cause: Cause) -> Message {
    match alert {
        Alert::Opened => incident(cause, Phase::Opened),
        Alert::Reminder => incident(cause, Phase::Reminder),
        Alert::Acknowledged => incident(cause, Phase::Acknowledged),
        Alert::Resolved => incident(cause, Phase::Resolved),
        Alert::Escalated => incident(cause, Phase::Escalated),
        Alert::Test => plain(Event::Test),
        Alert::ChannelDisabled => disabled("webhook", "answered 410 Gone: the receiver is gone for good", false),
        Alert::BlindSpell => plain(Event::BlindSpell(BlindNotice {
            blind_spell: Spell {
                started_at: shop::NOW - TimeDelta::hours(7),
                ended_at: shop::NOW - TimeDelta::minutes(2),
            },
            monitors: 12,
            summary: "Deadbeat did not listen from 2026-01-01 19:15:00 UTC to 2026-01-02 02:13:00 UTC. It cannot tell whether 12 monitors \
                      reported in that time."
                .to_owned(),
            project: project(),
        })),
        Alert::Confirmation => plain(Event::Confirmation(Confirmation {
            site: SITE.to_owned(),
            url: format!("{SITE}/confirm/{}?token=…", shop::id(8)),
            expires: (shop::NOW + TimeDelta::days(7)).timestamp(),
        })),
    }
}

/// Returns every kind of message that webhooks send: each cause, each event, names that need escaping, and messages without the fields that
/// may be absent.
#[must_use]
pub fn every_kind() -> Vec<Message> {
    let of_causes = Cause::ALL.map(|cause| incident(cause, Phase::Opened));
    let phases = Phase::ALL
        .into_iter()
        .flat_map(|phase| [Cause::Missed, Cause::BeatDown].map(|cause| incident(cause, phase)));
    let others =
        [Alert::Test, Alert::ChannelDisabled, Alert::BlindSpell].map(|alert| of(alert, Cause::Missed));
    let unsubscribed = disabled("email", "the owner of the address unsubscribed", true);
    let bare = Phase::ALL.map(|phase| changed(incident(Cause::Unknown, phase), bare));
    let odd = Phase::ALL.map(|phase| changed(incident(Cause::Missed, phase), odd));
    of_causes
        .into_iter()
        .chain(phases)
        .chain(others)
        .chain([unsubscribed])
        .chain(bare)
        .chain(odd)
        .collect()
}

/// Gives everything in a message the longest allowed name, without spaces.
#[must_use]
pub fn with_long_names(message: Message) -> Message {
    changed(message, |event| {
        let long = |most: usize| -> String { "reports.monthly_".chars().cycle().take(most).collect() };
        if let Some(monitor) = &mut event.monitor {
            monitor.name = long(limits::MONITOR_NAME_CHARS);
            monitor.tags = (0..10).map(|_| long(limits::TAG_CHARS)).collect();
        }
        let incident = &mut event.incident;
        incident.subject.name = long(limits::MONITOR_NAME_CHARS);
        incident.project.name = long(limits::NAME_CHARS);
        incident.cause.summary = format!("{} did not report.", incident.subject.name);
        for member in &mut incident.members {
            member.name = long(limits::MONITOR_NAME_CHARS);
        }
        for fact in &mut incident.evidence {
            fact.fact = format!("It was sent to queue {}.", long(limits::TEXT_CHARS));
        }
        let command = Command::new("celery -A shop worker -n").arg(&long(limits::TEXT_CHARS));
        incident.repair.push(Repair::command("Start it again.", command));
    })
}

fn changed(mut message: Message, change: fn(&mut message::IncidentEvent)) -> Message {
    if let Event::Incident(event) = &mut message.event {
        change(event);
    }
    message
}

/// Removes every field that may be absent.
fn bare(event: &mut message::IncidentEvent) {
    event.monitor = None;
    let incident = &mut event.incident;
    incident.cause.url = None;
    incident.acknowledge_url = None;
    incident.acknowledged_by = None;
    incident.evidence.clear();
    incident.repair.clear();
}

fn odd(event: &mut message::IncidentEvent) {
    if let Some(monitor) = &mut event.monitor {
        ODD_NAME.clone_into(&mut monitor.name);
        monitor.tags = vec![ODD_NAME.to_owned()];
    }
    let incident = &mut event.incident;
    ODD_NAME.clone_into(&mut incident.subject.name);
    ODD_NAME.clone_into(&mut incident.project.name);
    incident.cause.summary = format!("{ODD_NAME} did not report.\n\tIt was due.");
    for fact in &mut incident.evidence {
        ODD_NAME.clone_into(&mut fact.fact);
    }
    for step in &mut incident.repair {
        ODD_NAME.clone_into(&mut step.text);
    }
}

fn disabled(kind: &str, reason: &str, unsubscribed: bool) -> Message {
    plain(Event::ChannelDisabled(ChannelDisabled {
        channel: DisabledChannel {
            id: ChannelId(shop::id(8)),
            name: "pager".to_owned(),
            kind: kind.to_owned(),
        },
        reason: reason.to_owned(),
        unsubscribed,
        project: project(),
    }))
}

fn plain(event: Event) -> Message {
    Message { at: shop::NOW, event }
}

fn project() -> message::Project {
    message::Project {
        id: shop::project(),
        name: shop::PROJECT.to_owned(),
    }
}

/// Returns an event of an incident.
fn incident(cause: Cause, phase: Phase) -> Message {
    on_scene(cause, |changed| {
        let explained = changed.explain(cause, shop::NOW).visible();
        let mut incident = Incident {
            id: IncidentId(shop::id(3)),
            project_id: shop::project(),
            subject: changed.subject(),
            cause,
            severity: cause.severity(),
            summary: explained.summary,
            evidence: explained.evidence,
            repair: explained.repair,
            opened_at: shop::NOW,
            resolved_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            remind_at: None,
            is_inferred: false,
            is_flapping: false,
        };
        let at = enter(phase, &mut incident);
        let affected = (incident.subject.kind != SubjectKind::Monitor).then(shop::affected);
        let site = Site { url: SITE.to_owned() };
        let incident_alert = IncidentAlert {
            phase,
            incident: &incident,
            // The outbox writes reminders and escalations without reading the monitor.
            monitor: changed
                .monitor()
                .filter(|_| !matches!(phase, Phase::Reminder | Phase::Escalated | Phase::LongDown)),
            affected: None,
            at,
            step: &[],
        };
        let mut message = compose(&site, &incident_alert, shop::PROJECT, affected.as_ref());
        if let Event::Incident(event) = &mut message.event
            && phase.asks_to_act()
        {
            event.incident.acknowledge_url =
                Some(format!("{SITE}/acknowledge/{}?token=…", event.incident.id));
        }
        message
    })
}

/// Brings an incident into a phase. Returns the time at which that happened.
fn enter(phase: Phase, incident: &mut Incident) -> DateTime<Utc> {
    match phase {
        Phase::Opened => shop::NOW,
        Phase::Escalated => shop::NOW + TimeDelta::minutes(10),
        Phase::Acknowledged => {
            let at = shop::NOW + TimeDelta::minutes(4);
            incident.acknowledged_at = Some(at);
            incident.acknowledged_by = Some("ops@example.org".to_owned());
            at
        }
        Phase::Reminder => shop::NOW + TimeDelta::hours(4),
        Phase::LongDown => shop::NOW + LONG_DOWN,
        Phase::Resolved => {
            let at = shop::NOW + TimeDelta::minutes(42);
            incident.resolved_at = Some(at);
            at
        }
    }
}

#[cfg(test)]
mod tests;
