//! Escalation policies: who is notified of an incident that nobody acknowledges, and when.
//!
//! A policy has **steps**. A step names channels and rotations, and has a delay after the previous step. After the last
//! step, the policy may start again: each pass through the steps is a **round**. An incident escalates until a person
//! acknowledges it, it is over, or the rounds are used up.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ChannelId, EscalationPolicyId, RotationId};
use crate::limits;
use crate::monitor::{FieldError, check_tags, read_label};

/// The shortest time between two rounds, in seconds.
const SHORTEST_REPEAT_SECONDS: u32 = 60;
/// The time between two rounds if a policy sets none, in seconds.
const REPEAT_SECONDS: u32 = 600;

/// An escalation policy as the API and the database write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// Its name for people.
    pub name: String,
    /// The monitors that the policy covers. None: it is the project's default.
    #[serde(default, rename = "match")]
    pub matching: Option<Matching>,
    /// The steps, in their order. Each step notifies its targets.
    pub steps: Vec<Step>,
    /// How many more rounds follow the first one.
    #[serde(default)]
    pub repeat_count: u32,
    /// How long after the last step the next round begins, in seconds.
    #[serde(default = "repeat_seconds")]
    pub repeat_delay_seconds: u32,
}

fn repeat_seconds() -> u32 {
    REPEAT_SECONDS
}

/// The monitors that a policy covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matching {
    /// Those with one of these tags.
    pub tags: Vec<String>,
}

/// A step of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The delay after the previous step, in seconds. For the first step: after the incident opened.
    pub delay_seconds: u32,
    /// The channels and rotations that the step notifies.
    pub targets: Vec<Target>,
}

/// A target that a step notifies. A policy cannot name a policy, so escalations form no cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What kind of thing it is.
    pub kind: TargetKind,
    /// Its id.
    pub id: Uuid,
}

/// The kinds of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A channel.
    Channel,
    /// The person who is on call in a rotation when the step is due.
    Rotation,
}

/// A policy whose settings were checked ([`Policy::read`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    settings: PolicySettings,
}

/// A step that is not due yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the policy, counted from 0.
    pub step: u32,
    /// The round, counted from 0.
    pub round: u32,
    /// When it is due.
    pub due_at: DateTime<Utc>,
}

impl Policy {
    /// Checks settings. It cannot check whether the channels and rotations exist.
    ///
    /// # Errors
    /// Every fault, with its JSON pointer.
    pub fn read(mut settings: PolicySettings) -> Result<Self, Vec<FieldError>> {
        let mut faults = Vec::new();
        settings.name = read_label("/name", &settings.name, limits::NAME_CHARS, &mut faults);
        if let Some(matching) = &mut settings.matching {
            if matching.tags.is_empty() {
                let message =
                    "is empty; one tag or more are allowed (the project's default has `match` null)";
                faults.push(FieldError::new("/match/tags", message));
            }
            check_tags("/match/tags", &mut matching.tags, &mut faults);
        }
        let counted = |pointer: String, found: usize, most: usize, faults: &mut Vec<FieldError>| {
            let is_good = (1..=most).contains(&found);
            if !is_good {
                let message = format!("has {found} entries; 1 to {most} are allowed");
                faults.push(FieldError::new(pointer, message));
            }
            is_good
        };
        let most = limits::POLICY_STEPS;
        if counted("/steps".to_owned(), settings.steps.len(), most, &mut faults) {
            for (index, step) in settings.steps.iter().enumerate() {
                let pointer = format!("/steps/{index}");
                check_delay(
                    &format!("{pointer}/delay_seconds"),
                    0,
                    step.delay_seconds,
                    &mut faults,
                );
                let targets = format!("{pointer}/targets");
                if !counted(
                    targets.clone(),
                    step.targets.len(),
                    limits::STEP_TARGETS,
                    &mut faults,
                ) {
                    continue;
                }
                for (place, target) in step.targets.iter().enumerate() {
                    if step.targets[..place].contains(target) {
                        let message = format!("is {} again; each target may occur once", target.id);
                        faults.push(FieldError::new(format!("{targets}/{place}"), message));
                    }
                }
            }
        }
        if settings.repeat_count > limits::POLICY_REPEATS {
            let message = format!(
                "is {}; 0 to {} are allowed",
                settings.repeat_count,
                limits::POLICY_REPEATS
            );
            faults.push(FieldError::new("/repeat_count", message));
        }
        let least = SHORTEST_REPEAT_SECONDS;
        check_delay(
            "/repeat_delay_seconds",
            least,
            settings.repeat_delay_seconds,
            &mut faults,
        );
        if faults.is_empty() {
            Ok(Self { settings })
        } else {
            Err(faults)
        }
    }

    /// The checked settings.
    #[must_use]
    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// The tags of its monitors. None: it is the project's default.
    #[must_use]
    pub fn tags(&self) -> Option<&[String]> {
        self.settings.matching.as_ref().map(|matching| &matching.tags[..])
    }

    /// The targets of a step. Empty: the policy was changed, and now has fewer steps.
    #[must_use]
    pub fn targets(&self, step: u32) -> &[Target] {
        self.step(step).map_or(&[], |step| &step.targets)
    }

    /// Every target with its JSON pointer.
    pub fn all_targets(&self) -> impl Iterator<Item = (String, Target)> {
        let steps = self.settings.steps.iter().enumerate();
        steps.flat_map(|(step, found)| {
            let targets = found.targets.iter().enumerate();
            targets.map(move |(place, target)| (format!("/steps/{step}/targets/{place}"), *target))
        })
    }

    /// True if a step names the channel.
    #[must_use]
    pub fn names_channel(&self, id: ChannelId) -> bool {
        self.names(TargetKind::Channel, id.0)
    }

    /// True if a step names the rotation.
    #[must_use]
    pub fn names_rotation(&self, id: RotationId) -> bool {
        self.names(TargetKind::Rotation, id.0)
    }

    /// Returns the step that follows a step that was due now. If that step notified nobody, nobody can acknowledge, so
    /// the next step of its round is due at once. None: the rounds are used up.
    #[must_use]
    pub fn after(&self, step: u32, round: u32, has_reached: bool, now: DateTime<Utc>) -> Option<Pending> {
        if let Some(next) = self.step(step + 1) {
            let wait = if has_reached { next.delay_seconds } else { 0 };
            return Some(Pending {
                step: step + 1,
                round,
                due_at: now + TimeDelta::seconds(wait.into()),
            });
        }
        (round < self.settings.repeat_count).then(|| Pending {
            step: 0,
            round: round + 1,
            due_at: now + TimeDelta::seconds(self.settings.repeat_delay_seconds.into()),
        })
    }

    fn step(&self, step: u32) -> Option<&Step> {
        self.settings.steps.get(usize::try_from(step).ok()?)
    }

    fn names(&self, kind: TargetKind, id: Uuid) -> bool {
        self.all_targets()
            .any(|(_, target)| target == Target { kind, id })
    }
}

fn check_delay(pointer: &str, least: u32, seconds: u32, faults: &mut Vec<FieldError>) {
    if !(least..=limits::ESCALATION_DELAY_SECONDS).contains(&seconds) {
        let most = limits::ESCALATION_DELAY_SECONDS;
        let message = format!("is {seconds}; {least} to {most} seconds are allowed");
        faults.push(FieldError::new(pointer, message));
    }
}

/// A policy, with the facts that decide which incidents it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: EscalationPolicyId,
    /// See [`Policy::tags`].
    pub tags: Option<Vec<String>>,
    /// The delay of its first step, in seconds.
    pub first_delay_seconds: u32,
}

impl Candidate {
    /// Its first step.
    #[must_use]
    pub fn first(&self, opened_at: DateTime<Utc>) -> Pending {
        Pending {
            step: 0,
            round: 0,
            due_at: opened_at + TimeDelta::seconds(self.first_delay_seconds.into()),
        }
    }
}

/// Chooses the policy of a new incident: the oldest one that names a tag of its monitor, else the project's default.
/// `tags` is empty if the incident's subject is no monitor.
#[must_use]
pub fn choose<'a>(candidates: &'a [Candidate], tags: &[String]) -> Option<&'a Candidate> {
    let matches = |one: &&Candidate| {
        let named = one.tags.as_deref().unwrap_or_default();
        named.iter().any(|tag| tags.contains(tag))
    };
    let by_tag = candidates.iter().filter(matches).min_by_key(|one| one.id);
    by_tag.or_else(|| candidates.iter().find(|one| one.tags.is_none()))
}

#[cfg(test)]
mod tests;
