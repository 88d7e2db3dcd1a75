//! Reads a project's Celery subjects, and sorts them by how urgently they need a person.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use deadbeat_domain::ids::{IncidentId, ProjectId};
use deadbeat_domain::incident::SubjectKind;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::status::Status;
use deadbeat_store::celery::beat::{self, Beat};
use deadbeat_store::celery::broker::{self, Broker};
use deadbeat_store::celery::host;
use deadbeat_store::celery::queue::{self, Queue};
use deadbeat_store::celery::worker::queues;
use deadbeat_store::celery::worker::queues::Consumers;
use deadbeat_store::celery::worker::{self, Count, Worker};
use deadbeat_store::incident::{self, Incident};
use deadbeat_store::{Reader, StoreResult};
use uuid::Uuid;

use super::Limits;
use super::part::PartFacts;
use crate::web::format;
use crate::web::monitor::dashboard;

/// How urgently a subject needs a person, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Down,
    InTrouble,
    None,
    /// The subject is no longer expected to report.
    Left,
}

impl Need {
    pub(super) fn of(status: Status, is_in_trouble: bool) -> Self {
        match status {
            Status::Down => Self::Down,
            Status::Paused => Self::Left,
            Status::New | Status::Up if is_in_trouble => Self::InTrouble,
            Status::New | Status::Up => Self::None,
        }
    }

    fn is_trouble(self) -> bool {
        matches!(self, Self::Down | Self::InTrouble)
    }
}

/// A project's Celery subjects. Of its workers, only the counts.
pub(super) struct Subjects {
    pub(super) beats: Vec<Beat>,
    pub(super) brokers: Vec<Broker>,
    pub(super) queues: Vec<Queue>,
    pub(super) workers: Vec<Count>,
}

impl Subjects {
    pub(super) async fn read(reader: &Reader, project: ProjectId) -> StoreResult<Self> {
        Ok(Self {
            beats: beat::list(reader, project).await?,
            brokers: broker::list(reader, project).await?,
            queues: queue::list(reader, project).await?,
            workers: worker::counts(reader, project).await?,
        })
    }

    /// Returns how urgently the subjects of each application need a person: (application, kind, need, number of subjects).
    fn needs(&self) -> impl Iterator<Item = (&str, &'static str, Need, i64)> {
        let beats = self.beats.iter().map(|beat| {
            let need = Need::of(beat.state.status, beat.state.trouble.is_some());
            (beat.name.as_str(), "Beat", need, 1)
        });
        let brokers = self.brokers.iter().map(|broker| {
            let need = Need::of(broker.state.status, broker.state.trouble.is_some());
            (broker.app.as_str(), "broker", need, 1)
        });
        let queues = self.queues.iter().map(|queue| {
            let need = Need::of(queue.state.status, queue.state.trouble.is_some());
            (queue.app.as_str(), "queue", need, 1)
        });
        let workers = self.workers.iter().map(|count| {
            let need = Need::of(count.status, count.in_trouble);
            (count.app.as_str(), "worker", need, count.workers)
        });
        beats.chain(brokers).chain(queues).chain(workers)
    }

    /// Returns the applications, the most urgent first.
    pub(super) fn apps(&self) -> Vec<String> {
        let mut needs: BTreeMap<&str, Need> = BTreeMap::new();
        for (app, _, need, _) in self.needs() {
            let worst = needs.entry(app).or_insert(need);
            *worst = need.min(*worst);
        }
        let mut apps: Vec<(&str, Need)> = needs.into_iter().collect();
        apps.sort_by_key(|(_, need)| *need);
        apps.into_iter().map(|(app, _)| app.to_owned()).collect()
    }

    pub(super) fn headline(&self, only: Option<&str>) -> String {
        let mut total = 0;
        let mut parts = Vec::new();
        for what in ["Beat", "broker", "queue", "worker"] {
            let number: i64 = self
                .needs()
                .filter(|(app, kind, need, _)| {
                    *kind == what && need.is_trouble() && only.is_none_or(|only| only == *app)
                })
                .map(|(.., number)| number)
                .sum();
            if number > 0 {
                parts.push(format::count(number, what));
                total += number;
            }
        }
        let last = parts.pop();
        match last {
            None if self.needs().next().is_none() => "No Celery process has reported yet".to_owned(),
            None => "Nothing is in trouble".to_owned(),
            Some(last) => {
                let all = if parts.is_empty() {
                    last
                } else {
                    format!("{} and {last}", parts.join(", "))
                };
                format!("{all} {} in trouble", if total == 1 { "is" } else { "are" })
            }
        }
    }
}

/// The data of the applications that the page shows.
pub(super) struct CeleryPageData {
    pub(super) known: Subjects,
    pub(super) workers: Vec<Worker>,
    pub(super) consumers: Vec<Consumers>,
    incidents: Vec<Incident>,
    /// Beats and workers that are members of an incident about their host: their ids, with the id of that host.
    hosts: HashMap<Uuid, Uuid>,
    /// The incidents that the dashboard shows with their repair.
    on_dashboard: Vec<IncidentId>,
}

impl CeleryPageData {
    pub(super) async fn read(
        reader: &Reader,
        project: ProjectId,
        known: Subjects,
        apps: &[String],
        limits: Limits,
    ) -> StoreResult<Self> {
        if apps.is_empty() {
            return Ok(Self {
                known,
                workers: Vec::new(),
                consumers: Vec::new(),
                incidents: Vec::new(),
                hosts: HashMap::new(),
                on_dashboard: Vec::new(),
            });
        }
        let (most, left) = (limits.workers as i64, limits.left as i64);
        let workers = worker::worst_first(reader, project, apps, most, left).await?;
        let queues = || known.queues.iter().filter(|queue| apps.contains(&queue.app));
        let names: Vec<String> = queues().map(|queue| queue.name.clone()).collect();
        let shown = |app: &String| apps.contains(app);
        let beats = known.beats.iter().filter(|beat| shown(&beat.name));
        let brokers = known.brokers.iter().filter(|broker| shown(&broker.app));
        let troubled: Vec<(SubjectKind, Uuid)> = beats
            .map(|beat| {
                (
                    SubjectKind::Beat,
                    beat.id.0,
                    beat.state.status,
                    beat.state.trouble,
                )
            })
            .chain(brokers.map(|of| (SubjectKind::Broker, of.id.0, of.state.status, of.state.trouble)))
            .chain(queues().map(|of| (SubjectKind::Queue, of.id.0, of.state.status, of.state.trouble)))
            .chain(
                workers
                    .iter()
                    .map(|of| (SubjectKind::Worker, of.id.0, of.state.status, of.state.trouble)),
            )
            .filter(|(.., status, trouble)| Need::of(*status, trouble.is_some()).is_trouble())
            .map(|(kind, id, ..)| (kind, id))
            .collect();
        let (incidents, hosts, on_dashboard) = if troubled.is_empty() {
            (Vec::new(), HashMap::new(), Vec::new())
        } else {
            let parts: Vec<Uuid> = troubled.iter().map(|(_, id)| *id).collect();
            let hosts = host::read_of_parts(reader, project, &parts).await?;
            let of_hosts = hosts.values().map(|host| (SubjectKind::Host, *host));
            let subjects: Vec<(SubjectKind, Uuid)> = troubled.into_iter().chain(of_hosts).collect();
            (
                incident::open_about(reader, project, &subjects).await?,
                hosts,
                dashboard::shown_incidents(reader, project).await?,
            )
        };
        Ok(Self {
            consumers: queues::consumers(reader, project, apps, &names).await?,
            known,
            workers,
            incidents,
            hosts,
            on_dashboard,
        })
    }

    pub(super) fn said(
        &self,
        id: Uuid,
        trouble: Option<Cause>,
        since: Option<DateTime<Utc>>,
    ) -> PartFacts<'_> {
        let about = |subject: Uuid| {
            self.incidents
                .iter()
                .find(|incident| incident.subject.id == subject)
        };
        let incident = about(id).or_else(|| {
            let host = self.hosts.get(&id)?;
            about(*host)
        });
        PartFacts {
            trouble,
            since,
            incident,
            is_on_dashboard: incident.is_some_and(|incident| self.on_dashboard.contains(&incident.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(workers: &[(&str, Status, bool, i64)]) -> Subjects {
        let count = |&(app, status, in_trouble, workers): &(&str, Status, bool, i64)| Count {
            app: app.to_owned(),
            status,
            in_trouble,
            workers,
        };
        Subjects {
            beats: Vec::new(),
            brokers: Vec::new(),
            queues: Vec::new(),
            workers: workers.iter().map(count).collect(),
        }
    }

    #[test]
    fn the_application_that_needs_a_person_most_comes_first() {
        let known = known(&[
            ("a", Status::Paused, false, 5),
            ("b", Status::Up, false, 1),
            ("c", Status::Up, true, 1),
            ("d", Status::Up, false, 7),
            ("d", Status::Down, false, 1),
            ("e", Status::New, false, 1),
        ]);
        assert_eq!(known.apps(), ["d", "c", "b", "e", "a"]);
    }

    #[test]
    fn the_headline_counts_what_is_in_trouble() {
        for (workers, only, headline) in [
            (vec![], None, "No Celery process has reported yet"),
            (vec![("a", Status::Up, false, 9)], None, "Nothing is in trouble"),
            (
                vec![("a", Status::Down, false, 1)],
                None,
                "1 worker is in trouble",
            ),
            (
                vec![("a", Status::Down, false, 1), ("b", Status::Up, true, 1_200)],
                None,
                "1,201 workers are in trouble",
            ),
            (
                vec![("a", Status::Down, false, 1), ("b", Status::Up, false, 1)],
                Some("b"),
                "Nothing is in trouble",
            ),
        ] {
            assert_eq!(known(&workers).headline(only), headline);
        }
    }
}
